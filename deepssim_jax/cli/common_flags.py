"""The flags that every command takes."""

from absl import flags

VERBOSE = flags.DEFINE_bool("verbose", False, "when something fails, print the whole traceback")
