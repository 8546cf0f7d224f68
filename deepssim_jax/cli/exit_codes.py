"""What the exit status of a command says."""

import enum


class ExitCode(enum.IntEnum):
    """The exit status of every command; scripts may rely on it."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # a wrong flag, or input that cannot be used
    POLICY_BROKEN = 3  # done, but a limit that the user set is exceeded
    INCONCLUSIVE = 4  # done, but the numbers carry no verdict
    STOPPED = 75  # stopped by a signal with everything finished so far on disk
