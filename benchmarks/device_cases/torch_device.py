"""PyTorch on the same card: what the peers of every section share."""

import functools
import importlib.util
import sys
from collections.abc import Callable

import numpy as np


def has_torch() -> bool:
    """Whether the peers can run."""
    return importlib.util.find_spec("torch") is not None


@functools.cache
def device() -> str:
    """Where PyTorch computes: the card, if it sees one."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32, on either side
    torch.backends.cudnn.allow_tf32 = False
    return "cuda" if torch.cuda.is_available() else "cpu"


def on_device(array: np.ndarray):
    """A tensor there."""
    import torch

    return torch.from_numpy(np.array(array)).to(device())


def waited(run: Callable[[], object]) -> Callable[[], None]:
    """`run`, and nothing given back before the card is done."""
    import torch

    def whole() -> None:
        run()
        if device() == "cuda":
            torch.cuda.synchronize()

    return whole


def release() -> None:
    """Gives PyTorch's memory back, so that JAX finds it, where PyTorch was used at all."""
    torch = sys.modules.get("torch")
    if torch is not None and device() == "cuda":
        torch.cuda.empty_cache()
