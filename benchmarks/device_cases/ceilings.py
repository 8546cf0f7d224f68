"""What the card is seen to do: products of each kind, and a copy, in JAX and in PyTorch."""

import functools
from collections.abc import Iterator

from benchmarks.device_cases.card import Kind, copy, product
from benchmarks.device_cases.section import Peer, Work
from benchmarks.device_cases.torch_device import device, has_torch, waited


def measured(tiny: bool) -> Iterator[Work]:
    """Beside the nominal figures, which no program reaches."""
    side = 128 if tiny else 8192
    kinds = Kind if device_has_tf32() else [kind for kind in Kind if kind is not Kind.TF32]
    for kind in kinds:
        peers = {}
        if has_torch() and kind in (Kind.F32, Kind.BF16):
            peers["torch"] = Peer(functools.partial(_torch_product, kind, side), 2.0 * side**3)
        yield Work(
            f"product_{kind.value}",
            "operations",
            2.0 * side**3,
            product(kind, side=side),
            {"side": side},
            peers,
            products={kind: 2.0 * side**3},
        )
    count, moved, run = copy(tiny=tiny)
    yield Work("copy", "bytes", moved, run, {"numbers": count}, bytes=moved)


def device_has_tf32() -> bool:
    """Only NVIDIA's GPUs do."""
    return has_torch() and device() == "cuda"


def _torch_product(kind: Kind, side: int):
    import torch

    dtype = torch.bfloat16 if kind is Kind.BF16 else torch.float32
    a, b = (torch.randn(side, side, device=device()).to(dtype) for _ in range(2))
    return waited(lambda: a @ b)
