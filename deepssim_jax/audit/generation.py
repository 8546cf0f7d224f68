"""Images of a trained generator.

Contract: a workdir of `train_ldm` makes image number i of a seed, float32 [h, w] in [0, 1], whatever
else is made with it or before it: bit for bit with the same number of images on a device at a time,
and to `TOLERANCE` with any other batch or number of devices, because a compiler orders sums by the
shape of the batch. `Generator` gives arrays; `generate` writes a folder of files with a manifest,
batch by batch, and goes on where it was stopped.
"""

import csv
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deepssim_jax import parallel
from deepssim_jax.audit.generated_table import MANIFEST, Planned, manifest_csv
from deepssim_jax.data.pictures import ImageFormat
from deepssim_jax.diffusion import samplers
from deepssim_jax.diffusion.samplers import Sampler
from deepssim_jax.diffusion.schedule import Prediction, Schedule
from deepssim_jax.diffusion.steering import Steering, steer
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.training.diffusion_step import predictor
from deepssim_jax.training.generator import AUTOENCODER, CONDITIONS, DENOISER, RECORDS
from deepssim_jax.training.latents import load_latents
from deepssim_jax.typing import Array
from deepssim_jax.workspace import (
    Access,
    Workspace,
    WorkspaceError,
    check_written,
    key_of,
    sha256,
)

COMMAND = "generate"
# In float32 at full precision; a value on the edge between two of 255 grey levels may take either.
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """How images are drawn; `batch` on all devices at a time, `guidance` 1 for none.

    `away` steers away from the training images (`diffusion.steering`); `half` calls the denoiser in
    bfloat16, the sums of the sampler and the decoder stay float32.
    """

    sampler: Sampler = Sampler.DDIM
    steps: int = 50
    guidance: float = 1.0
    batch: int = 16
    away: bool = False
    half: bool = False


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """An image of the training set: how often it was trained on, 0 if it was held out."""

    image_id: str
    subject_id: str | None
    copies: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Generator:
    """A trained model of a folder, ready to draw.

    `records` are the images it was made with; `conditions` [records, tokens, d] what it was conditioned
    on, or None; `weights_hash` is the SHA-256 of all files that an image follows from: both networks,
    the records and the conditions.
    """

    workdir: Path
    autoencoder: AutoencoderSpec
    autoencoder_params: nnx.State
    denoiser: UNetSpec
    denoiser_params: nnx.State
    schedule: Schedule
    scale: float
    size: tuple[int, int]
    records: tuple[TrainingRecord, ...]
    conditions: np.ndarray | None
    weights_hash: str

    @classmethod
    def load(cls, workdir: str | Path) -> "Generator":
        """The model of a finished `train_ldm`.

        Raises:
          ValueError: the folder is not finished, a file was changed after it was written, or they do not
            fit each other.
        """
        workdir = Path(workdir)
        if not (workdir / DENOISER).is_file():
            raise ValueError(
                f"{workdir.name!r} holds no {DENOISER}: finish train_ldm with this --workdir first"
            )
        check_written(workdir, (DENOISER, AUTOENCODER), command="train_ldm")
        denoiser, denoiser_params, card = network_file.load(workdir / DENOISER, UNetSpec)
        autoencoder, params, _ = network_file.load(workdir / AUTOENCODER, AutoencoderSpec)
        if autoencoder.latent != denoiser.latent:
            raise ValueError(
                f"{AUTOENCODER} has {autoencoder.latent} latent channels and {DENOISER} "
                f"{denoiser.latent}; they are of different trainings"
            )
        fields = json.loads(card["schedule"])
        fields["prediction"] = Prediction(fields["prediction"])
        needed = (RECORDS,) if denoiser.context is None else (RECORDS, CONDITIONS)
        for name in needed:
            if not (workdir / name).is_file():
                raise ValueError(
                    f"{workdir.name!r} holds no {name}, which train_ldm writes; beside converted "
                    "weights it is for you to write (see deepssim convert --help)"
                )
        check_written(workdir, needed, command="train_ldm")
        with (workdir / RECORDS).open(newline="", encoding="utf-8") as file:
            records = tuple(
                TrainingRecord(
                    row["image_id"], row["subject_id"] or None, int(row["copies"]), row["sha256"]
                )
                for row in csv.DictReader(file)
            )
        condition = None
        if denoiser.context is not None:
            condition = np.load(workdir / CONDITIONS, allow_pickle=False)
        height, width = json.loads(card["size"])
        return cls(
            workdir,
            autoencoder,
            params,
            denoiser,
            denoiser_params,
            Schedule(**fields),
            float(card["latent_scale"]),
            (height, width),
            records,
            condition,
            key_of([sha256(workdir / name) for name in (DENOISER, AUTOENCODER, *needed)]),
        )

    @property
    def trained(self) -> np.ndarray:
        """Rows of `records` that were trained on."""
        return np.flatnonzero([record.copies > 0 for record in self.records])

    @functools.cached_property
    def latents(self) -> np.ndarray:
        """float32 [records, h, w, c]: the images of the records as the denoiser sees them.

        Raises:
          ValueError: the folder does not hold them.
        """
        found = load_latents(self.workdir)
        if len(found.mean) != len(self.records):
            raise ValueError(
                f"{self.workdir.name!r} holds {len(found.mean)} latents and {len(self.records)} "
                "records; run train_ldm again with this --workdir"
            )
        return np.float32(found.scale) * found.mean

    @functools.cached_property
    def steering(self) -> Steering:
        """Away from the images that were trained on.

        Raises:
          ValueError: the folder does not hold their latents, or they are of one person.
        """
        people = [self.records[row].subject_id or f" {row}" for row in self.trained]
        groups = np.unique(people, return_inverse=True)[1]
        return Steering.of(self.latents[self.trained], groups)

    def records_of(self, indices: Sequence[int] | np.ndarray, *, seed: int) -> np.ndarray:
        """Whose condition each image gets, where nothing else is asked for: drawn by (seed, i)."""
        trained = self.trained
        chosen = [np.random.default_rng([seed, int(i)]).integers(len(trained)) for i in indices]
        return trained[chosen]

    def images(
        self,
        indices: Sequence[int] | np.ndarray,
        *,
        seed: int,
        settings: SamplingSettings = SamplingSettings(),
        records: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Images of these numbers.

        Args:
          indices: numbers of images, from 0 on, in any order.
          seed: of all of them.
          settings: how they are drawn.
          records: rows of `records` whose conditions are used; drawn if None.

        Returns:
          float32 [len(indices), h, w] in [0, 1].
        """
        indices = np.asarray(indices)
        chosen = self.records_of(indices, seed=seed) if records is None else np.asarray(records)
        mesh = parallel.data_mesh()
        batch = _at_once(settings)
        spread = parallel.batch_sharding(mesh)
        out = []
        with parallel.using(mesh):
            away = None
            if settings.away:
                away = self.steering.directions, np.float32(self.steering.limit)
            # The scale and the seed are arguments, too: what differs by them alone shares a program.
            key = np.asarray(jax.random.key_data(jax.random.key(seed)))
            weights = parallel.spread(
                (self.denoiser_params, self.autoencoder_params, away, np.float32(self.scale)),
                parallel.replicated(mesh),
            )
            for start in range(0, len(indices), batch):
                count = len(indices[start : start + batch])
                # The last batch is filled up, so that every one is the same program.
                rows = np.minimum(np.arange(start, start + batch), start + count - 1)
                condition = None if self.conditions is None else self.conditions[chosen[rows]]
                given = parallel.spread((indices[rows].astype(np.uint32), condition), spread)
                program = parallel.compiled(self._program(settings), weights, key, *given)
                made = program(weights, key, *given)
                out.append(np.asarray(parallel.whole(made))[:count])
        return np.concatenate(out) if out else np.zeros((0, *self.size), np.float32)

    def _program(self, settings: SamplingSettings) -> jax.stages.Wrapped:
        return _compiled(self.autoencoder, self.denoiser, self.schedule, self.size, settings)


def _at_once(settings: SamplingSettings) -> int:
    """The batch, rounded up to what all devices share evenly."""
    return -(-settings.batch // jax.device_count()) * jax.device_count()


@functools.cache
def _compiled(
    autoencoder: AutoencoderSpec,
    denoiser: UNetSpec,
    schedule: Schedule,
    size: tuple[int, int],
    settings: SamplingSettings,
) -> jax.stages.Wrapped:
    graph = network_file.blueprint(autoencoder)[0]

    @jax.jit
    def run(
        weights: tuple[nnx.State, nnx.State, tuple[Array, Array] | None, Array],
        key: Array,
        indices: Array,
        condition: Array | None,
    ) -> Array:
        away, scale = weights[2:]
        network = predictor(denoiser, weights[0], half=settings.half)
        latents = samplers.sample(
            samplers.guided(network, condition, guidance=settings.guidance),
            samplers.image_keys(jax.random.wrap_key_data(key), indices),
            shape=(*autoencoder.latent_size(size), autoencoder.latent),
            schedule=schedule,
            sampler=settings.sampler,
            steps=settings.steps,
            correct=lambda clean: clean if away is None else steer(clean, *away),
        )
        model = nnx.merge(graph, weights[1], copy=True)
        return jnp.clip(model.decode(latents / scale, size=size), 0.0, 1.0)

    return run


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which images: `n`, each with the condition of a training image drawn by (seed, i), or `per_record`
    for every training image, in a folder of its own. `seed` is of all images, `image_format` of the files;
    where images are screened, `budget` is the most candidates, ten for an image if None.
    """

    n: int = 0
    per_record: int = 0
    seed: int = 0
    image_format: ImageFormat = ImageFormat.PNG
    budget: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if a budget cannot give as many images as are wanted."""
        if self.budget is not None and self.budget < self.n:
            raise ValueError(
                f"--budget={self.budget} candidates cannot give --n={self.n} images; give at least --n, "
                "and more where candidates are refused"
            )


def plan(generator: Generator, wanted: Wanted) -> tuple[Planned, ...]:
    """What to make, images of a training image in a folder of its own.

    The folder has the image's number in `records.csv`, which stays in the workdir: an id may name a patient,
    and this folder is made to be given away.

    Raises:
      ValueError: not exactly one of `n` and `per_record` is more than 0.
    """
    n, per_record, seed = wanted.n, wanted.per_record, wanted.seed
    if (n > 0) == (per_record > 0):
        raise ValueError(f"give one of --n and --per_record; got {n} and {per_record}")
    end = wanted.image_format.suffix
    if n:
        rows = generator.records_of(np.arange(n), seed=seed)
        return tuple(Planned(i, int(row), f"gen-{i:06d}{end}") for i, row in enumerate(rows))
    return tuple(
        Planned(row * per_record + number, row, f"record-{row:06d}/gen-{number}{end}")
        for row in generator.trained.tolist()
        for number in range(per_record)
    )


def generate(
    generator: Generator,
    out: Path,
    wanted: Wanted,
    *,
    settings: SamplingSettings = SamplingSettings(),
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> int:
    """Writes files of images and `manifest.csv`; what is there already is not made again.

    Args:
      generator: the model.
      out: the folder.
      wanted: which images.
      settings: how they are drawn.
      on_progress: called with (images done, images in all, what).

    Returns:
      The number of images in the folder.

    Raises:
      WorkspaceError: the folder is not ours, or holds images of other weights, settings or format, or
        more of them than are wanted.
    """
    seed, image_format = wanted.seed, wanted.image_format
    planned = plan(generator, wanted)
    mark = {
        "weights": generator.weights_hash,
        "seed": seed,
        "per_record": wanted.per_record,
        "format": image_format.value,
        **{k: str(v) for k, v in dataclasses.asdict(settings).items()},
    }
    opened = Workspace.open(
        out,
        command=COMMAND,
        reads={"--workdir": generator.workdir},
        processes=parallel.processes(),
    )
    with opened as workspace:
        workspace.bind("generation", mark)
        others = set(workspace) - {p.name for p in planned} - {MANIFEST}
        if others:
            raise WorkspaceError(
                f"--out={out.name!r} holds {len(others):,} images that this command does not make, of a run "
                f"with a larger --n than {wanted.n}, say; give that one or more, or another folder"
            )
        size = _at_once(settings)
        for start in range(0, len(planned), size):
            run = planned[start : start + size]
            if not parallel.agreed(all(workspace.intact(p.name) for p in run)):
                made = generator.images(
                    [p.index for p in run],
                    seed=seed,
                    settings=settings,
                    records=[p.record for p in run],
                )
                for one, image in zip(run, made, strict=True):
                    content = image_format.encoded(image)
                    workspace.write(one.name, content, access=Access.SHARED)
            on_progress(start + len(run), len(planned), "generating")
        conditioned = generator.conditions is not None
        rows = manifest_csv(planned, seed, generator.weights_hash, conditioned=conditioned)
        workspace.write(MANIFEST, rows, access=Access.SHARED)
    return len(planned)
