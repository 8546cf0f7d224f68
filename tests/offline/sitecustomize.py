"""Python imports this as it starts, because the folder is on PYTHONPATH."""

import close_network  # noqa: F401
