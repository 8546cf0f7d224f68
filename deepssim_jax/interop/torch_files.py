"""State dicts in files: safetensors, PyTorch's own and TorchScript.

Contract: a state dict maps names to float32 NumPy arrays. PyTorch is needed for its own files alone
(the `convert` extra); of those only tensors are read, never pickled objects.
"""

import importlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from deepssim_jax.workspace.files import write_new


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a `.safetensors` file, or of a PyTorch file (`convert` extra).

    A PyTorch file may be a state dict or a TorchScript module; no pickled code is run for the
    former.

    Raises:
      ValueError: the file is neither, or PyTorch is not installed.
    """
    if path.suffix == ".safetensors":
        try:
            found = safetensors.numpy.load_file(path)
            return {name: value.astype(np.float32) for name, value in found.items()}
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path.name} is no safetensors file: {error}") from error
    torch = _torch(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a TorchScript archive; torch names no narrower error for it
        try:
            found = torch.jit.load(str(path), map_location="cpu").state_dict()
        except Exception as error:
            raise ValueError(
                f"{path.name} is neither a state dict nor a TorchScript module"
            ) from error
    for name in ("state_dict", "model_state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(hasattr(v, "numpy") for v in found.values()):
        raise ValueError(f"{path.name} holds no state dict")
    return {name: value.detach().float().numpy() for name, value in found.items()}


def write_state_dict(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes a `.safetensors` file, or with another ending a PyTorch state dict, into a new file.

    Raises:
      ValueError: PyTorch is needed and not installed, or there is a file of other content.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in state_dict.items()}
    if path.suffix == ".safetensors":
        write_new(path, safetensors.numpy.save(arrays))
        return
    torch, buffer = _torch(path), io.BytesIO()
    torch.save({name: torch.from_numpy(value) for name, value in arrays.items()}, buffer)
    write_new(path, buffer.getvalue())


def _torch(path: Path) -> Any:
    if importlib.util.find_spec("torch") is None:
        raise ValueError(
            f"{path.name} needs PyTorch: pip install 'deepssim_jax[convert]', or use .safetensors"
        )
    return importlib.import_module("torch")
