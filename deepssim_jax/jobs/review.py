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
from deepssim_jax.jobs.review_images import ImageDrawer
from deepssim_jax.jobs.review_page import Shown, page
from deepssim_jax.jobs.review_pictures import PairView
from deepssim_jax.jobs.review_reading import read_source
from deepssim_jax.jobs.review_source import SAMPLE, ReviewPair, ReviewSource, VolumeForm
from deepssim_jax.jobs.review_standing import noted
from deepssim_jax.jobs.review_volumes import VolumeDrawer
from deepssim_jax.ops import arguments
from deepssim_jax.scoring.match import Progress
from deepssim_jax.workspace import Workspace, sha256

MOST_PAIRS = 1000
_BATCH = 16


class Reading(enum.StrEnum):
    """What a reader sees: everything, or pictures alone, with pairs of known truth among them.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.Reading("blind").page
      'review_blind.html'
    """

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

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.ReviewSettings(pairs=100, reading=ds.Reading.BLIND).controls
      20
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

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(4)
      >>> with tempfile.TemporaryDirectory() as images, tempfile.TemporaryDirectory() as out:
      ...     _ = testing.write_images(images, [*phantoms, phantoms[2, :, ::-1]])
      ...     found = ds.duplicates(images, out=out, settings=ds.DuplicateSettings(size=64))
      ...     made = ds.review(out)
      >>> made.page.name, made.pairs, made.unread
      ('review.html', 1, 0)
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
      folder: the `--out` of a finished audit, or search for duplicates or replicas; its images must still lie
        where they lay.
      settings: see `ReviewSettings`.
      on_progress: called with (pairs done, pairs in all, what).

    Returns:
      What was written, into the same folder, for its owner alone.

    Raises:
      InputError: the folder is of no finished job, or holds no pair that can be shown.
      ValueError: a setting cannot work.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(4)
      >>> with tempfile.TemporaryDirectory() as images, tempfile.TemporaryDirectory() as out:
      ...     _ = testing.write_images(images, [*phantoms, phantoms[2, :, ::-1]])
      ...     found = ds.duplicates(images, out=out, settings=ds.DuplicateSettings(size=64))
      ...     made = ds.review(out)
      ...     page = made.page.read_bytes()
      >>> len(page) == made.bytes
      True
    """
    arguments.instance(settings, "settings", ReviewSettings, remedy="it has all defaults")
    arguments.progress(on_progress)
    root = arguments.path(folder, "folder", "the output of a finished job").expanduser()
    source = read_source(root)
    with Workspace.open(root, command=source.job.value, flag="AUDIT") as out:
        return _review(source, out, settings, on_progress)


def _review(
    source: ReviewSource, out: Workspace, settings: ReviewSettings, on_progress: Progress
) -> ReviewResult:
    reading, rng = settings.reading, np.random.default_rng(settings.seed)
    chosen = sample(source, count=settings.pairs, rng=rng)
    wanted = settings.controls if reading is Reading.BLIND else 0
    if wanted and source.left_out:
        raise InputError(
            f"controls={wanted} would be made of any image in the folders, of which {source.left_out:,} "
            "were to be forgotten: remove their files and run the job again, or give controls=0"
        )
    drawer = _drawer(source, out, pairs=len(chosen) + 2 * wanted)
    names = _Names(out.secret(), reading)
    shown, rows = [], []
    for start in range(0, len(chosen), _BATCH):
        for pair, view in drawer.views(chosen[start : start + _BATCH]).items():
            name = names.of(pair.moving, pair.fixed)
            row = {"pair": name, "kind": SAMPLE, "stratum": pair.stratum}
            rows.append(row | {"moving": pair.moving, "fixed": pair.fixed})
            shown.append(_shown(name, pair, view, source, reading))
        on_progress(min(start + _BATCH, len(chosen)), len(chosen), "drawing pairs")
    if not shown:
        raise InputError(
            f"AUDIT={out.root.name!r}: there is no pair to show: none was found beside equal files and equal "
            "pixels, or its images lie elsewhere now"
        )
    unread = len(chosen) - len(shown)
    controls = drawer.controls(wanted, rng) if wanted else []
    for control in controls:
        name = names.of(control.known, control.fixed, control.origin, str(len(rows)))
        row = {"pair": name, "kind": control.known.value, "stratum": ""}
        rows.append(row | {"moving": control.origin, "fixed": control.fixed})
        shown.append(Shown(name, control.view))
    order = _order(shown, reading, rng)
    shown, rows = [shown[i] for i in order], [rows[i] for i in order]
    page_key = hashlib.sha256("\n".join(row["pair"] for row in rows).encode()).hexdigest()[:16]
    content = page(shown, key=page_key, names=source.names, blind=reading is Reading.BLIND)
    key = {
        "page": page_key,
        "reading": reading.value,
        "job": source.job.value,
        "table": sha256(out.path(source.job.pairs)),
        "strata": source.strata,
        "copies": sorted(source.copies),
        "rate": dict(source.rate),
        "pairs": rows,
        **noted(source, rows),
    }
    text = json.dumps(key, indent=1, sort_keys=True) + "\n"
    key_path = out.write(reading.key, text.encode())
    path = out.write(reading.page, content)
    return ReviewResult(
        page=path,
        key=key_path,
        pairs=len(rows) - len(controls),
        controls=len(controls),
        side=drawer.side,
        bytes=len(content),
        unread=unread,
    )


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


def _drawer(source: ReviewSource, out: Workspace, *, pairs: int) -> ImageDrawer | VolumeDrawer:
    if isinstance(source.form, VolumeForm):
        return VolumeDrawer.of(source, source.form, out, pairs=pairs)
    return ImageDrawer.of(source, source.form, pairs=pairs)


@dataclasses.dataclass(frozen=True)
class _Names:
    """Names of pairs that say nothing of them, and are the same in every run of this folder.

    A blind page has others: an open one would tell its reader which pairs are controls, and the scores.
    """

    secret: bytes
    reading: Reading

    def of(self, *what: str) -> str:
        """Of a pair."""
        blind = [self.reading.value] if self.reading is Reading.BLIND else []
        text = json.dumps([*blind, *what]).encode()
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()[:12]


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
