"""What is said of guarded images: `certificate.json`, made to go where the images go.

It names no patient and no path, and no small count of copies (`audit.disclosure`). Its digest catches a
slip or a careless hand; who fears more signs the file. The guard's search is not its own witness: some
of what it accepts, drawn by another seed, is verified against every training image without any search;
what this finds is withheld, and its share is the residual rate of what was not drawn.
"""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.audit import outputs
from deepssim_jax.audit.disclosure import SMALL, Edition, is_small, is_telling
from deepssim_jax.audit.guard import Guard, Reason
from deepssim_jax.audit.result import Thresholds
from deepssim_jax.audit.tables import proportion
from deepssim_jax.data.manifest import InputError
from deepssim_jax.scoring.decide import Proportion
from deepssim_jax.scoring.diversity import diversity
from deepssim_jax.workspace import Access, Workspace

NAME = "certificate.json"
_NOTHING = (
    "Nothing was released and nothing is claimed of any image: it is not known well enough whether copies "
    "of these training images would be found."
)
_UNTESTED = (
    "Not measured: nothing was accepted, or --residual_pairs is less than the number of training "
    "images."
)
_STATEMENT = (
    "Every image listed here was compared with every training image and lies below both limits. This "
    "does not say that the images are anonymous: it says that none is a copy that this search finds. "
    "Several pictures in one image are compared one by one only where lines part them."
)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One candidate: what it is called inside, its number, the `suffix` of its file, and `sha256` of that
    if it was accepted, else empty.

    `cosine` and `verified` are None if it could not be judged; `reason` is None if it was accepted.
    """

    name: str
    index: int
    suffix: str
    cosine: float | None
    verified: float | None
    reason: Reason | None
    sha256: str


@dataclasses.dataclass(frozen=True)
class Residual:
    """Copies that the search misses: `rate` among images that it accepted, drawn by `seed`."""

    seed: int
    rate: Proportion

    def to_json(self) -> dict[str, object]:
        """As the certificate has it."""
        if not self.rate.total:
            return {"seed": self.seed, "rate": None, "reason": _UNTESTED}
        return {"seed": self.seed, "rate": _to_share(self.rate)}


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the candidates came from: a model, or a folder if `model` is None.

    `drawn` says how, for example the seed; `wanted` images were asked for, or all if None. The `budget` of
    candidates is not certified: where it was used up it would tell how many were refused. Nor is the
    `listing` of a folder, a hash of its names and files.
    """

    model: str | None
    drawn: Mapping[str, object]
    wanted: int | None
    budget: int | None = None
    listing: str = ""


@dataclasses.dataclass(frozen=True)
class Screened:
    """Candidates in their order; embeddings [n, d] of those that could be judged; what the search misses;
    names of candidates that were verified against every training image; and the names under which
    accepted ones leave, by their number.
    """

    candidates: Sequence[Candidate]
    embeddings: np.ndarray
    residual: Residual
    tested: Collection[str]
    names: Mapping[int, str]


def certify(
    guard: Guard,
    screened: Screened,
    *,
    folder: Workspace,
    source: Source,
    files: Mapping[str, str],
) -> None:
    """Writes the certificate.

    Args:
      guard: that judged the candidates.
      screened: what became of them.
      folder: where the accepted images lie, and the certificate will.
      source: of the candidates.
      files: hashes of other files of the folder.
    """
    candidates = screened.candidates
    accepted = np.array([c.reason is None for c in candidates if c.cosine is not None], bool)
    kept = [c for c in candidates if c.reason is None]
    settings, limits = guard.settings, guard.limits
    judged = None if is_small(len(candidates) - len(kept)) else len(candidates)
    # How many were tested is known from other numbers; how many of them stand would tell what was missed.
    hidden = is_small(screened.residual.rate.count)
    content: dict[str, object] = {
        "statement": _NOTHING if guard.doubt else _STATEMENT,
        "missed": missed(limits.thresholds),
        "limits": {
            "max_cosine": limits.max_cosine,
            "max_ssim": limits.max_ssim,
            "cosine_origin": limits.cosine_origin,
            "ssim_origin": limits.ssim_origin,
            "calibrated": list(limits.calibrated),
            **recalls(limits.thresholds),
        },
        "training": training_mark(guard),
        "source": {"model": source.model, "wanted": source.wanted, **source.drawn},
        # Not by reason: how many were found to be copies is for the institution that drew them.
        "candidates": {"judged": judged, "accepted": len(kept)},
        "residual": screened.residual.to_json(),
        "diversity": _cost(guard.side.embeddings, screened.embeddings, accepted),
        "images": [
            {
                "number": number,
                "name": screened.names[c.index],
                "sha256": c.sha256,
                "cosine": c.cosine,
                "verified": c.verified,
                "tested": None if hidden else c.name in screened.tested,
            }
            for number, c in enumerate(kept)
        ],
        "files": dict(files),
        "settings": {
            "size": settings.size,
            "slice": settings.slice_spec,
            "subject_regex": settings.subject_regex is not None,
            "encoder": "default" if settings.encoder == "default" else "custom",
            "seed": settings.seed,
            "level": settings.level,
        },
        "versions": outputs.versions(settings.encoder),
    }
    content["digest"] = digest(content)
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    folder.write(NAME, text.encode(), access=Access.SHARED)


def missed(thresholds: Thresholds) -> str:
    """What the search did not find of copies that were planted where the answer is known."""
    shares = {
        "whole images": thresholds.planted_recall,
        "images with a changed region": thresholds.planted_near_recall,
    }
    known = [
        f"of {p.total} planted copies of {name} it {_words(p)}"
        for name, p in shares.items()
        if p is not None
    ]
    if not known:
        return (
            "What this search misses was not measured: there are too few training images for that."
        )
    return f"This search misses copies: {', and '.join(known)}."


def _words(p: Proportion) -> str:
    if is_small(p.count):
        return f"found fewer than {SMALL}"
    return f"missed {Edition.SHARED.count(p.total - p.count)}"


def recalls(thresholds: Thresholds) -> dict[str, object]:
    """Shares of planted copies that were found, as the certificate has them."""
    return {
        "recall_of_planted_copies": _to_share(thresholds.planted_recall),
        "recall_of_planted_local_changes": _to_share(thresholds.planted_near_recall),
    }


def _to_share(p: Proportion | None) -> dict[str, object] | None:
    if p is not None and is_telling(p):
        return {"suppressed": f"a count below {SMALL} could point to a person"}
    return proportion(p)


def rejected(candidates: Sequence[Candidate]) -> dict[str, int]:
    """How many candidates stay, by reason."""
    return {reason.value: sum(c.reason is reason for c in candidates) for reason in Reason}


def read(folder: Path) -> dict:
    """The content of a folder's certificate.

    Raises:
      InputError: it is no JSON object.
    """
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{NAME} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{NAME} holds no certificate")
    return content


def digest(content: Mapping[str, object]) -> str:
    """SHA-256 of all that a certificate says, but for this digest."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def training_mark(guard: Guard) -> dict[str, object]:
    """What identifies a training set without naming anyone: a hash of all its files' hashes."""
    whole = hashlib.sha256("\n".join(sorted(guard.images.sha256)).encode()).hexdigest()
    return {"images": len(guard.images), "sha256": whole}


def _cost(real: np.ndarray, embeddings: np.ndarray, accepted: np.ndarray) -> dict[str, object]:
    """Recall and coverage of as many first candidates as were accepted, and of the accepted ones."""
    kept = embeddings[accepted]
    if len(kept) < 2 or len(real) < 2:
        return {"before": None, "after": None}
    sides = {"before": embeddings[: len(kept)], "after": kept}
    return {name: dataclasses.asdict(diversity(real, made)) for name, made in sides.items()}
