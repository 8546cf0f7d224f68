"""The sections of device.py: what is measured on an accelerator, and how."""
