"""The sharded programs compile for TPUs, fit their memory, and talk only as intended."""

import pytest

pytest.importorskip("libtpu", reason="the tpu extra is not installed")

from benchmarks import tpu_compile

# Replicated search and SSIM send nothing; the ring passes references on; training sums gradients.
INTENDED = {
    "search": set(),
    "search_ring": {"collective-permute"},
    "ssim_tile": set(),
    "train_step": {"all-reduce"},
    "denoiser_step": {"all-reduce"},
    # Weights are gathered where they are used; gradients are summed, and each chip keeps its part.
    "denoiser_step_fsdp": {"all-gather", "all-reduce"},
    "sample": set(),
}


@pytest.mark.tpu
@pytest.mark.parametrize("topology", sorted(tpu_compile.TOPOLOGIES))
@pytest.mark.parametrize("program", sorted(INTENDED))
def test_compiles(program: str, topology: str) -> None:
    found = tpu_compile.compile_for(program, topology)
    assert set(found["collectives"]) == INTENDED[program], found
    assert 0 < found["bytes_a_chip"] < 0.9 * tpu_compile.TOPOLOGIES[topology].memory
