"""What a run consists of, in the order of worth, and how long each part of it may take."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Section:
    """Module and function of its measurements, the seconds that are its own, XLA's flags if any.

    Sections of other flags than the first one's come last: they need a process of their own.
    """

    where: str
    seconds: float
    xla_flags: str = ""


# RAFT's select_k, also where ties must go to the smaller index, as `lax.top_k` promises. The name
# changed with jax 0.11, and XLA ends a process whose flag it does not know.
_JAX = tuple(int(part) for part in importlib.metadata.version("jax").split(".")[:2])
_RAFT = (
    "--xla_gpu_experimental_enable_raft_for_stable_topk=true"
    if _JAX >= (0, 11)
    else "--xla_gpu_experimental_use_raft_select_k=true"
)
_HERE = "benchmarks.device_cases"
# Those up to `agreement` have the whole run's time among them; the others have what is left of it.
SECTIONS = {
    "ceilings": Section(f"{_HERE}.ceilings:measured", 14),
    "search_study": Section(f"{_HERE}.search:study", 10),
    "local_features": Section(f"{_HERE}.local_features:measured", 26),
    "ssim": Section(f"{_HERE}.images:all_ssim", 26),
    "aligned": Section(f"{_HERE}.images:aligned", 16),
    "registration": Section(f"{_HERE}.images:registration", 14),
    "encoder_step": Section(f"{_HERE}.networks:encoder_step", 20),
    "denoiser_step": Section(f"{_HERE}.generators:denoiser_step", 20),
    "sampling": Section(f"{_HERE}.generators:sampling", 14),
    "audit": Section(f"{_HERE}.whole:audit", 85),
    "agreement": Section(f"{_HERE}.agreement:compared", 25),
    "search_square": Section(f"{_HERE}.search:square", 25),
    "autoencoder_step": Section(f"{_HERE}.generators:autoencoder_step", 25),
    "embedding": Section(f"{_HERE}.networks:embedding", 20),
    "selection": Section(f"{_HERE}.search:selection", 15),
    "search_study_raft": Section(f"{_HERE}.search:study", 15, _RAFT),
    "selection_raft": Section(f"{_HERE}.search:selection", 15, _RAFT),
}
RUN_SECONDS = 380.0
COMPILING = 95.0  # seconds that all programs may take to compile, beside each other
STARTUP = COMPILING + 15  # before the first section begins


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The sections of a run that began at `started`, by the clock of `time.monotonic`, and its seconds."""

    names: tuple[str, ...]
    started: float
    seconds: float
    sections: Mapping[str, Section] = dataclasses.field(default_factory=lambda: SECTIONS)
    startup: float = STARTUP

    @property
    def deadline(self) -> float:
        """When all has to be over."""
        return self.started + self.seconds

    def limit(self, name: str, now: float) -> float:
        """Seconds of a section that begins now: its own, what those before it left, not beyond the run.

        Where few are asked for, they share all the time in the proportion of their own.
        """
        own = [self.sections[other].seconds for other in self.names]
        scale = max(1.0, (self.seconds - self.startup) / sum(own))
        before = sum(own[: self.names.index(name) + 1])
        due = self.started + self.startup + scale * before
        limit = max(scale * self.sections[name].seconds, due - now)
        return min(limit, self.deadline - now)
