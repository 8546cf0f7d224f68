"""Compiles the sharded programs for TPUs that are not here, and records what XLA says of them.

    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu python benchmarks/tpu_compile.py --out=benchmarks/results

Needs the `tpu` extra. For each program and topology: bytes a chip needs, collectives in the compiled
program, the compiler's own estimate of flops and seconds, and what follows from them a second: as XLA
estimates it, where it does, and at most, were every product at the chip's peak. Nothing is run.
"""

import collections
import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp
from absl import app, flags
from flax import nnx
from jax.experimental import topologies

from benchmarks.cases.records import keep
from deepssim_jax import parallel
from deepssim_jax.audit import generation
from deepssim_jax.audit.generation import SamplingSettings
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.embedder import EmbedderSpec
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.ops import ssim
from deepssim_jax.scoring import pairs, tiles
from deepssim_jax.scoring.tiles import Queries, References
from deepssim_jax.training.diffusion_step import DenoiserJob, LatentBatch, predictor
from deepssim_jax.training.pairs import PairBatch
from deepssim_jax.training.step import OptimizerConfig, Trainer


@dataclasses.dataclass(frozen=True)
class Chip:
    """Bytes of its memory, and bfloat16 operations a second at its peak."""

    memory: int
    peak: float


# https://cloud.google.com/tpu/docs/v5e and /v5p
TOPOLOGIES = {"v5e:4x4": Chip(16 << 30, 197e12), "v5p:2x2x4": Chip(95 << 30, 459e12)}
_COLLECTIVE = re.compile(
    r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|"
    r"collective-broadcast)(?:-start)?\("
)
# Images a chip works on at a time in the programs of the generator, and steps of sampling.
LATENTS, STEPS = 8, 50
_PROGRAM = flags.DEFINE_multi_string("program", None, "programs to compile; all if not given")
_TOPOLOGY = flags.DEFINE_multi_string("topology", None, "topologies; all if not given")
_OUT = flags.DEFINE_string("out", None, "folder for tpu_compile.jsonl; nothing is written without")


def mesh_of(topology: str) -> jax.sharding.Mesh:
    """A data mesh of chips that need not be here."""
    chips = topologies.get_topology_desc(topology, platform="tpu").devices
    return parallel.data_mesh(found=list(chips))


def _like(
    shape: tuple[int, ...], sharding: jax.NamedSharding, dtype: object = jnp.float32
) -> object:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _search(mesh: jax.sharding.Mesh, *, ring: bool) -> jax.stages.Lowered:
    """Top 10 of a million references, replicated or in a ring, 32 strips of queries a chip."""
    tiling = tiles.Tiling.best("tpu", queries=1_000_000, k=10)
    spread, every = parallel.batch_sharding(mesh), parallel.replicated(mesh)
    rows = tiling.rows * tiling.strips * mesh.size
    count = tiling.tile * tiling.spans * (mesh.size if ring else 1)
    where = spread if ring else every
    norms = (_like((count,), where), _like((count,), where))
    return pairs._step.lower(
        (_like((rows, 10), spread), _like((rows, 10), spread, jnp.int32), _like((rows,), spread)),
        Queries(_like((rows, 256), spread)),
        References(
            _like((count, 256), where), None, _like((count, 256), where, jnp.bfloat16), norms
        ),
        _like((), every, jnp.int32),
        _like((), every, jnp.int32),
        visit=tiles.visit_best(tiling=tiling, in_order=not ring, surely=False),
        mesh=mesh,
        ring=ring,
    )


def _last_axis(mesh: jax.sharding.Mesh) -> Callable[[int], jax.NamedSharding]:
    """For a number of axes: the last one, images in `ops.ssim`, is spread over the devices."""
    return lambda ndim: jax.NamedSharding(mesh, jax.P(*(None,) * (ndim - 1), parallel.DATA))


def _ssim(mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """SSIM at 136 x 112 of 16 images on every chip with 128 of each chip's own."""
    every, last = parallel.replicated(mesh), _last_axis(mesh)

    def tile(real: jax.Array, synthetic: jax.Array) -> jax.Array:
        x, y = (ssim.moments(images, "uniform") for images in (real, synthetic))
        return ssim.ssim_tile(x, y, x.extent, window="uniform")

    run = jax.shard_map(
        tile,
        mesh=mesh,
        in_specs=(every.spec, last(3).spec),
        out_specs=last(2).spec,
        check_vma=False,
    )
    return jax.jit(run).lower(
        _like((136, 112, 16), every), _like((136, 112, 128 * mesh.size), last(3))
    )


def _train(mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """One step of DeepSSIM++ on 64 pairs a chip at 136 x 112, in bfloat16 as accelerators take it."""
    spec = dataclasses.replace(EmbedderSpec.tiny(), dropout=0.0)
    trainer = Trainer.create(spec, OptimizerConfig(), half=True)
    spread, every = parallel.batch_sharding(mesh), parallel.replicated(mesh)
    count = 64 * mesh.size
    images = _like((count, 136, 112), spread)
    with parallel.using(mesh):
        state = jax.tree.map(
            lambda x: _like(x.shape, every, x.dtype), jax.eval_shape(lambda: trainer.init(0))
        )
        return trainer.compiled[0].lower(state, PairBatch(images, images, _like((count,), spread)))


def _denoise(mesh: jax.sharding.Mesh, *, fsdp: int) -> jax.stages.Lowered:
    """One step of the full-size U-Net on 8 latents of 36 x 28 a chip; four chips share the weights
    with `fsdp` 4.
    """
    mesh = parallel.data_mesh(found=list(mesh.devices.flat), fsdp=fsdp)
    job = DenoiserJob.create(UNetSpec(), half=True)
    batch = _like((LATENTS * mesh.size, 36, 28, 3), parallel.batch_sharding(mesh))
    with parallel.using(mesh):
        shapes = jax.eval_shape(lambda: job.init(0))
        state = jax.tree.map(
            lambda x, where: _like(x.shape, where, x.dtype),
            shapes,
            parallel.state_shardings(shapes, mesh),
        )
        return job.compiled_step.lower(state, LatentBatch(batch, batch))


def _sample(mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """50 steps of DDIM of 8 images of 136 x 112 a chip, and their decoding."""
    spread, every = parallel.batch_sharding(mesh), parallel.replicated(mesh)
    settings = SamplingSettings(batch=LATENTS, steps=STEPS, half=True)
    specs = (UNetSpec(), AutoencoderSpec())
    weights = [
        jax.tree.map(lambda x: _like(x.shape, every, x.dtype), network_file.blueprint(spec)[1])
        for spec in specs
    ]
    program = generation._compiled(specs[1], specs[0], Schedule(), (136, 112), settings)
    with parallel.using(mesh):
        indices = _like((LATENTS * mesh.size,), spread, jnp.uint32)
        key, scale = _like((2,), every, jnp.uint32), _like((), every, jnp.float32)
        return program.lower((*weights, None, scale), key, indices, None)


def _turns() -> float:
    """Operations of all steps of sampling but the first: XLA counts what is in a loop once."""
    spec = UNetSpec()
    given = jnp.zeros((LATENTS, 36, 28, 3)), jnp.zeros(LATENTS, jnp.int32)

    def run(params: nnx.State, x: jax.Array, times: jax.Array) -> jax.Array:
        return predictor(spec, params)(x, times, None)

    cost = jax.jit(run).lower(network_file.blueprint(spec)[1], *given).cost_analysis()
    return (STEPS - 1) * cost["flops"]


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled, images or pairs that a chip does in one run of it, and operations in loops
    that XLA leaves out; of the search, most of them, so that no rate can be told from its count.
    """

    lower: Callable[[jax.sharding.Mesh], jax.stages.Lowered]
    items: int | None = None
    left_out: Callable[[], float] = lambda: 0.0


PROGRAMS = {
    "search": Program(lambda mesh: _search(mesh, ring=False)),
    "search_ring": Program(lambda mesh: _search(mesh, ring=True)),
    "ssim_tile": Program(_ssim, 16 * 128),
    "train_step": Program(_train, 64),
    "denoiser_step": Program(lambda mesh: _denoise(mesh, fsdp=1), LATENTS),
    "denoiser_step_fsdp": Program(lambda mesh: _denoise(mesh, fsdp=4), LATENTS),
    "sample": Program(_sample, LATENTS, _turns),
}


def rates(program: Program, flops: float, seconds: float | None, peak: float) -> dict[str, object]:
    """Items a second and chip: as XLA estimates the seconds, and at most, at the chip's peak."""
    if program.items is None:
        return {}
    whole = flops + program.left_out()
    return {
        "items_a_chip": program.items,
        "flops_with_loops": whole,
        "items_per_s_estimated": seconds and round(program.items / seconds * flops / whole, 1),
        "items_per_s_at_most": round(program.items / (whole / peak), 1),
    }


def compile_for(program: str, topology: str) -> dict[str, object]:
    """What the compiler says of one program on one topology."""
    work, chip = PROGRAMS[program], TOPOLOGIES[topology]
    compiled = work.lower(mesh_of(topology)).compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    needed = memory.argument_size_in_bytes + memory.output_size_in_bytes
    needed += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    # Loops count once, and for some chips the estimate is a negative number: no estimate.
    seconds = found if (found := cost.get("optimal_seconds", -1)) > 0 else None
    return {
        "program": program,
        "topology": topology,
        "bytes_a_chip": needed,
        "collectives": dict(collections.Counter(_COLLECTIVE.findall(compiled.as_text()))),
        "flops_a_chip": cost["flops"],
        "optimal_seconds": seconds,
        **rates(work, cost["flops"], seconds, chip.peak),
        "jax": jax.__version__,
    }


def main(_: list[str]) -> None:
    for topology in _TOPOLOGY.value or TOPOLOGIES:
        for program in _PROGRAM.value or PROGRAMS:
            record = compile_for(program, topology)
            print(json.dumps(record), flush=True)
            keep(record, _OUT.value, "tpu_compile")


if __name__ == "__main__":
    app.run(main)
