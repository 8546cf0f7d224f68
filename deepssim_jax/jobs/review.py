"""The page on which people decide pairs, and what their ratings come to.

`review` draws a sample of the pairs of a finished folder within the program's own labels, and writes one
HTML file that holds their pictures. Which pair is which stands in a key beside it, for the institution alone;
a page for blind readers holds no name, score or label.
"""

import dataclasses
import enum
import hashlib
import hmac
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.data.manifest import InputError
from deepssim_jax.data.store import InputSettings
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.jobs.review_controls import Control, make_controls
from deepssim_jax.jobs.review_page import Shown, page
from deepssim_jax.jobs.review_pictures import Fields, PairView, views
from deepssim_jax.jobs.review_source import ReviewPair, ReviewSource, read_source
from deepssim_jax.ops import arguments
from deepssim_jax.scoring.match import Progress
from deepssim_jax.workspace import Workspace

MOST_PAIRS = 1000
# Two pictures a pair, PNG of 8 bits (no larger than its pixels, but for a header), in base64: the page stays
# below this many bytes, so that pictures of 500 pairs have 192 pixels a side, and of 250 pairs 256.
_MOST_BYTES = 48 * 2**20
_SIDES = (256, 192, 160, 128)
_BATCH = 16
SAMPLE = "sample"
Loaded = dict[str, np.ndarray]


class Reading(enum.StrEnum):
    """What a reader sees: everything, or pictures alone, with pairs of known truth among them."""

    OPEN = "open"
    BLIND = "blind"

    @property
    def page(self) -> str:
        """Name of the page."""
        return "review.html" if self is Reading.OPEN else "review_blind.html"

    @property
    def key(self) -> str:
        """Name of the file that says which pair is which."""
        return "review_key.json" if self is Reading.OPEN else "review_blind_key.json"


@dataclasses.dataclass(frozen=True)
class ReviewSettings:
    """What a user may choose.

    `pairs` is the size of the sample; `controls` the number of known copies, and of known unrelated
    pairs, that are mixed in for blind readers; `seed` that of everything drawn.
    """

    pairs: int = 200
    reading: Reading = Reading.OPEN
    controls: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for values that cannot work."""
        arguments.whole(self.pairs, "pairs", least=1, most=MOST_PAIRS)
        arguments.whole(self.controls, "controls", least=0, most=MOST_PAIRS // 4)
        arguments.seed(self.seed, "seed")
        arguments.member(self.reading, "reading", Reading)


@dataclasses.dataclass(frozen=True)
class ReviewResult:
    """What was written.

    `pairs` and `controls` (of both kinds) are on the page; `side` is the pictures' in pixels; `bytes` the
    page's size; `unread` are pairs whose files cannot be read any more.
    """

    page: Path
    key: Path
    pairs: int
    controls: int
    side: int
    bytes: int
    unread: int


def review(
    folder: str | Path,
    *,
    settings: ReviewSettings = ReviewSettings(),
    on_progress: Progress = lambda done, total, what: None,
) -> ReviewResult:
    """Writes the page on which a reader decides pairs, and its key.

    Args:
      folder: the `--out` of a finished audit or search for duplicates; its images must still lie
        where they lay.
      settings: see `ReviewSettings`.
      on_progress: called with (pairs done, pairs in all, what).

    Returns:
      What was written, into the same folder, for its owner alone.

    Raises:
      InputError: the folder is of no finished job, or holds no pair that can be shown.
      ValueError: a setting cannot work.
    """
    root = Path(folder).expanduser()
    source = read_source(root)
    with Workspace.open(root, command=source.job.value, flag="AUDIT") as out:
        return _review(source, out, settings, on_progress)


def _review(
    source: ReviewSource, out: Workspace, settings: ReviewSettings, on_progress: Progress
) -> ReviewResult:
    reading, rng = settings.reading, np.random.default_rng(settings.seed)
    chosen = sample(source, count=settings.pairs, rng=rng)
    wanted = settings.controls if reading is Reading.BLIND else 0
    side = picture_side(len(chosen) + 2 * wanted)
    form = dataclasses.replace(source.form, size=(side, side))
    names = _Names(out.secret())
    shown, rows, unread = [], [], 0
    for start in range(0, len(chosen), _BATCH):
        batch = {x: _read(x, source, form) for x in chosen[start : start + _BATCH]}
        loaded = {x: images for x, images in batch.items() if images is not None}
        unread += len(batch) - len(loaded)
        drawn = _views(list(loaded), list(loaded.values()), source)
        for pair, view in zip(loaded, drawn, strict=True):
            name = names.of(pair.moving, pair.fixed)
            row = {"pair": name, "kind": SAMPLE, "stratum": pair.stratum}
            rows.append(row | {"moving": pair.moving, "fixed": pair.fixed})
            shown.append(_shown(name, pair, view, source, reading))
        on_progress(min(start + _BATCH, len(chosen)), len(chosen), "drawing pairs")
    if not shown:
        raise InputError(
            f"AUDIT={out.root.name!r}: there is no pair to show; its images must lie where they lay"
        )
    controls = make_controls(source, count=wanted, form=form, rng=rng) if wanted else []
    for control, view in zip(controls, _control_views(controls, source), strict=True):
        name = names.of(control.known, control.fixed, control.origin, str(len(rows)))
        row = {"pair": name, "kind": control.known.value, "stratum": ""}
        rows.append(row | {"moving": control.origin, "fixed": control.fixed})
        shown.append(Shown(name, view))
    order = _order(shown, reading, rng)
    shown, rows = [shown[i] for i in order], [rows[i] for i in order]
    page_key = hashlib.sha256("\n".join(row["pair"] for row in rows).encode()).hexdigest()[:16]
    content = page(shown, key=page_key, names=source.names, blind=reading is Reading.BLIND)
    key = {
        "page": page_key,
        "reading": reading.value,
        "job": source.job.value,
        "strata": source.strata,
        "copies": sorted(source.copies),
        "rate": dict(source.rate),
        "pairs": rows,
    }
    text = json.dumps(key, indent=1, sort_keys=True) + "\n"
    key_path = out.write(reading.key, text.encode())
    path = out.write(reading.page, content)
    return ReviewResult(
        page=path,
        key=key_path,
        pairs=len(rows) - len(controls),
        controls=len(controls),
        side=side,
        bytes=len(content),
        unread=unread,
    )


def picture_side(pairs: int) -> int:
    """The side in pixels of the pictures of so many pairs: the largest that keeps the page bounded."""
    fitting = [side for side in _SIDES if pairs * 2 * side**2 * 4 / 3 <= _MOST_BYTES]
    return fitting[0] if fitting else _SIDES[-1]


def sample(source: ReviewSource, *, count: int, rng: np.random.Generator) -> list[ReviewPair]:
    """A simple random sample of each stratum: up to half for what is called a copy, the rest of the others.

    What one side does not need goes to the other. Within a side strata are sampled by their size, and
    two of each at least.
    """
    strata: dict[str, list[ReviewPair]] = {}
    for pair in source.pairs:
        strata.setdefault(pair.stratum, []).append(pair)
    called = {s: len(x) for s, x in sorted(strata.items()) if s in source.copies}
    others = {s: len(x) for s, x in sorted(strata.items()) if s not in source.copies}
    most = max(count // 2, count - sum(others.values()))
    quota = _shares(called, min(most, sum(called.values())))
    quota |= _shares(others, max(count - sum(quota.values()), 0))
    return [
        strata[stratum][row]
        for stratum, n in quota.items()
        for row in np.sort(rng.permutation(len(strata[stratum]))[:n])
    ]


def _shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    total = sum(sizes.values())
    return {s: min(n, max(2, round(count * n / total))) for s, n in sizes.items()} if total else {}


@dataclasses.dataclass(frozen=True)
class _Names:
    """Names of pairs that say nothing of them, and are the same in every run of this folder."""

    secret: bytes

    def of(self, *what: str) -> str:
        """Of a pair."""
        text = json.dumps(what).encode()
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()[:12]


def _read(
    pair: ReviewPair, source: ReviewSource, form: InputSettings
) -> tuple[Loaded, Loaded] | None:
    """Both images of a pair; None where one is gone, or cannot be read any more."""
    try:
        return form.load(source.moving[pair.moving]), form.load(source.fixed[pair.fixed])
    except (KeyError, Unreadable, OSError):
        return None


def _views(
    pairs: Sequence[ReviewPair], loaded: Sequence[tuple[Loaded, Loaded]], source: ReviewSource
) -> list[PairView]:
    if not pairs:
        return []
    own, other = (Fields.of(images) for images in zip(*loaded, strict=True))
    return views(own, other, [pair.placed for pair in pairs], declared=source.form.size[0])


def _control_views(controls: Sequence[Control], source: ReviewSource) -> list[PairView]:
    out = []
    for start in range(0, len(controls), _BATCH):
        part = controls[start : start + _BATCH]
        own, other = Fields.of([x.moving for x in part]), Fields.of([x.still for x in part])
        out += views(own, other, [x.placed for x in part], declared=source.form.size[0])
    return out


def _shown(
    name: str, pair: ReviewPair, view: PairView, source: ReviewSource, reading: Reading
) -> Shown:
    if reading is Reading.BLIND:
        return Shown(name, view)
    record = source.fixed[pair.fixed]
    ids = [(source.names[0], pair.moving), (source.names[1], pair.fixed)]
    if record.subject_id:
        ids.append(("patient", record.subject_id))
    return Shown(name, view, facts=(*ids, *pair.facts), margin=pair.margin)


def _order(shown: Sequence[Shown], reading: Reading, rng: np.random.Generator) -> list[int]:
    """The least certain first; at random for blind readers, who then may stop anywhere."""
    if reading is Reading.BLIND:
        return [int(i) for i in rng.permutation(len(shown))]
    return sorted(range(len(shown)), key=lambda i: (abs(shown[i].margin or 0.0), shown[i].name))
