"""The flags of the safeguard, for the commands that let images out."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode

if TYPE_CHECKING:  # at run time they would load JAX before --help is answered
    from deepssim_jax.audit.guard import Guard, GuardSettings
    from deepssim_jax.audit.safeguard import Release
    from deepssim_jax.scoring.match import Progress
    from deepssim_jax.workspace import Workspace

flags.disclaim_key_flags()  # they belong to the command that has them defined


@dataclasses.dataclass(frozen=True)
class GuardFlags:
    """The flags of one command."""

    real: flags.FlagHolder
    max_cosine: flags.FlagHolder
    max_ssim: flags.FlagHolder
    size: flags.FlagHolder
    slice_spec: flags.FlagHolder
    subject_regex: flags.FlagHolder
    encoder: flags.FlagHolder
    residual_pairs: flags.FlagHolder
    work: flags.FlagHolder

    @classmethod
    def define(cls, *, required: bool) -> "GuardFlags":
        """Defines them for the calling module; `required` says whether --real is."""
        return cls(
            flags.DEFINE_string(
                "real", None, "the training images, all of them; only read", required=required
            ),
            flags.DEFINE_float(
                "max_cosine",
                None,
                "refuse an image whose embedding has this cosine with a training image; calibrated "
                "on the training images where it is not given",
                lower_bound=0.0,
                upper_bound=1.0,
            ),
            flags.DEFINE_float(
                "max_ssim",
                None,
                "refuse an image whose copy score with a training image, after alignment, is "
                "this; calibrated likewise",
                lower_bound=0.0,
                upper_bound=1.0,
            ),
            flags.DEFINE_integer("size", 128, "side in pixels at which images are compared"),
            flags.DEFINE_string("slice", "axial:0.5", "plane and place of training volumes' slice"),
            flags.DEFINE_string(
                "subject_regex", None, "finds the patient in a training file's name"
            ),
            flags.DEFINE_string("encoder", "default", "the shipped encoder, or a file of weights"),
            flags.DEFINE_integer(
                "residual_pairs",
                2000,
                "pairs of accepted and training images that are verified without any search, to "
                "say how often the search misses; 0 measures nothing",
                lower_bound=0,
            ),
            flags.DEFINE_string(
                "work",
                None,
                "folder from which a later run continues; it holds training images and is not to "
                "be given away; beside --out, with .work at its end, if not given",
            ),
        )

    @property
    def all(self) -> tuple[flags.FlagHolder, ...]:
        """Every one of them."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def work_folder(self, out: Path) -> Path:
        """Where a run keeps what is not to be given away."""
        return Path(self.work.value) if self.work.value else out.with_name(f"{out.name}.work")

    def open(
        self, out: Path, *, command: str, inputs: Mapping[str, str], reads: Mapping[str, str]
    ) -> "contextlib.AbstractContextManager[Workspace]":
        """Claims `--out` and `--work`, before anything is read; both lie outside of the inputs.

        Flags that cannot work are refused first, so that nothing is claimed for them.
        """
        from deepssim_jax.workspace import Workspace

        self._settings()
        return Workspace.open(
            out,
            command=command,
            inputs={"--real": self.real.value, **inputs},
            reads=reads,
            work=self.work_folder(out),
        )

    def build(self, work: "Workspace", on_progress: "Progress") -> "Guard":
        """The guard that these flags describe."""
        from deepssim_jax.audit.guard import Guard

        settings = self._settings()
        return Guard.build(Path(self.real.value), work, settings=settings, on_progress=on_progress)

    def _settings(self) -> "GuardSettings":
        from deepssim_jax.audit.guard import GuardSettings

        if self.encoder.value != "default":
            usage.exists(self.encoder, "file of weights")
        return GuardSettings(
            max_cosine=self.max_cosine.value,
            max_ssim=self.max_ssim.value,
            size=self.size.value,
            slice_spec=self.slice_spec.value,
            subject_regex=self.subject_regex.value,
            encoder=self.encoder.value,
        )


def finish(
    release: "Release", out: Path, *, work: Path, files: Sequence[tuple[str, object]] = ()
) -> ExitCode:
    """Says what came of it; `work` is private, `files` are rows on what was offered.

    `ExitCode.INCONCLUSIVE` if fewer images stand than were wanted, or if nothing may leave because it is
    not known whether copies would be found.
    """
    from deepssim_jax.audit import console as summary
    from deepssim_jax.audit.guard import Reason
    from deepssim_jax.audit.safeguard import TABLE

    rate = release.residual.rate
    tested = f"{rate.count} of {rate.total}, rate at most {rate.high:.4f}"
    console.finish(
        [
            *files,
            ("images accepted", release.accepted),
            ("candidates", release.judged),
            *((f"  refused: {Reason(x).words}", count) for x, count in release.rejected.items()),
            ("missed by the search, of images tested", tested if rate.total else "not measured"),
            *summary.planted_rows(release.thresholds),
        ],
        written=[out / "certificate.json", *([] if release.doubt else [work / TABLE])],
    )
    if release.complete:
        return ExitCode.DONE
    if release.doubt:
        console.error(f"nothing was released: {release.doubt}")
        return ExitCode.INCONCLUSIVE
    console.error(
        f"only {release.accepted} of {release.wanted} images were accepted of {release.judged} candidates: "
        f"{_why(release)}"
    )
    return ExitCode.INCONCLUSIVE


def _why(release: "Release") -> str:
    """What was refused most, and what helps."""
    from deepssim_jax.audit.guard import Reason

    blank = sum(release.rejected.get(reason, 0) for reason in (Reason.UNREADABLE, Reason.EMPTY))
    copies = sum(release.rejected.values()) - blank
    if blank > copies:
        return (
            f"{blank:,} of them are blank or hold too little to be compared; train the model for longer, or "
            "raise --budget"
        )
    return (
        f"{copies:,} of them repeat training images; raise --budget, or train on more images or for less "
        "time"
    )
