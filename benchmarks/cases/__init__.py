"""The cases of throughput.py, one kernel a function."""
