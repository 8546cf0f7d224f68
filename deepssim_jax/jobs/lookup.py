"""Which images of a prepared folder one image is a copy of, and whose they are.

`jobs.indexing` prepares a folder once; `lookup` answers for single images from it. It is the search and
the rule of `jobs.duplicates`: a pair is a copy here if it would be one there. A look-up is over in two
seconds, most of which go into starting: this file imports no more than it needs.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.audit import tables
from deepssim_jax.audit.self_join import look
from deepssim_jax.data import store
from deepssim_jax.data.contents import records_of
from deepssim_jax.data.formats import recognise
from deepssim_jax.data.manifest import InputError, Role, for_flag, read_manifest
from deepssim_jax.data.records import ArrayLayout, Record
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.data.walk import Entry
from deepssim_jax.features.extract import extract_one
from deepssim_jax.jobs.copy_rule import score_of
from deepssim_jax.jobs.how import How
from deepssim_jax.jobs.point_index import PreparedIndex
from deepssim_jax.ops import arguments
from deepssim_jax.ops.transform import FLIP_NAMES
from deepssim_jax.scoring import points
from deepssim_jax.scoring.points import PointSet
from deepssim_jax.scoring.side import Side
from deepssim_jax.scoring.verify import load_verify

_LEVELS = 65535.0
ANSWERS = (
    "query", "how", "image_id", "subject_id", "verified_score", "flip", "rotation_deg", "scale",
    "local_points", "local_evidence", "p_value", "its_duplicates",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LookupMatch:
    """An image of the index that a query is a copy of, or merely alike (see `How`).

    `verified_score`, `flip`, `rotation_deg` and `scale` are as in `audit.result.Match`, the score None
    where the pair was not verified; `points` and `evidence` are None where the pixels are equal. `in_group`
    are further images of the index that are duplicates of this one.
    """

    image_id: str
    subject_id: str | None
    how: How
    verified_score: float | None = 1.0
    flip: str = "none"
    rotation_deg: float = 0.0
    scale: float = 1.0
    points: float | None = None
    evidence: float | None = None
    p_value: float | None = None
    in_group: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class LookupAnswer:
    """Of one image: `matches`, best first; `refused` says why it could not be looked up.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(6)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(f"{work}/images", phantoms[:5])
      ...     settings = ds.DuplicateSettings(size=64)
      ...     prepared = ds.index(f"{work}/images", out=f"{work}/index", settings=settings)
      ...     (answer,) = ds.lookup(f"{work}/images/p0000.png", index=prepared)
      >>> answer.query_id, [match.image_id for match in answer.matches], answer.refused
      ('p0000.png', ['p0000.png'], None)
    """

    query_id: str
    matches: tuple[LookupMatch, ...] = ()
    refused: str | None = None


def lookup(image: str | Path | np.ndarray, *, index: PreparedIndex) -> tuple[LookupAnswer, ...]:
    """Looks images up in a prepared folder.

    Args:
      image: a file, a folder or manifest of several, or one image [h, w] of any real dtype.
      index: of `open_index`.

    Returns:
      An answer for each image, in the order of their ids.

    Raises:
      InputError: there is no such file, or it holds no image.
      ValueError: `image` or `index` is of another type, or an array is no single grey image of finite values.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(6)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(f"{work}/images", phantoms[:5])
      ...     settings = ds.DuplicateSettings(size=64)
      ...     prepared = ds.index(f"{work}/images", out=f"{work}/index", settings=settings)
      ...     (known,) = ds.lookup(phantoms[2], index=prepared)
      ...     (other,) = ds.lookup(phantoms[5], index=prepared)
      >>> [(match.image_id, match.how.value) for match in known.matches], other.matches
      ([('p0002.png', 'copy')], ())
    """
    arguments.instance(index, "index", PreparedIndex, remedy="open_index opens that of a folder")
    settings = store.InputSettings(
        size=(int(str(index.settings["size"])),) * 2,
        slice=str(index.settings["slice"]),
        canvas=points.SIDE,
    )
    if isinstance(image, np.ndarray):
        try:
            return (_answer("array", settings.fields(_grey(image)), index),)
        except Unreadable as error:
            return (LookupAnswer("array", refused=str(error)),)
    layout = ArrayLayout(str(index.settings["arrays"]))
    answers = []
    source = arguments.path(image, "image", "an image, or an array [h, w]").expanduser()
    for record in _records(source, layout):
        try:
            answers.append(_answer(record.image_id, settings.load(record), index))
        except (Unreadable, OSError) as error:
            answers.append(LookupAnswer(record.image_id, refused=str(error)))
    return tuple(answers)


def _grey(image: np.ndarray) -> np.ndarray:
    """float32 [h, w] of an array, by the rules for pixels of files."""
    if image.ndim != 2 or not image.size:
        raise ValueError(
            f"image {image.shape} must be one grey image [h, w]; take one slice of a volume, and of colours "
            "their luminance"
        )
    checked = arguments.images(image[None], "image", shape="[h, w]", dims=(3,))
    return np.asarray(checked[0], np.float32)


def load_search(index: PreparedIndex) -> None:
    """Loads the programs that search an index, at another time than the first image would."""
    points_ = index.local.references
    index.local.search(PointSet(np.zeros_like(points_.geometry[:1]), points_.descriptors[:1]))


def load_verification(index: PreparedIndex) -> None:
    """Likewise the program that verifies pairs."""
    load_verify(index.side.take(np.zeros(1, np.int64)))


def answers_csv(answers: Sequence[LookupAnswer]) -> bytes:
    """One row a match; an image without one has a row that says so."""
    rows: list[tuple[object, ...]] = []
    for answer in answers:
        for x in answer.matches:
            rows.append((
                answer.query_id, x.how.value, x.image_id, x.subject_id, x.verified_score, x.flip,
                x.rotation_deg, x.scale, x.points, x.evidence, x.p_value, " ".join(x.in_group),
            ))  # fmt: skip
        if not answer.matches:
            rows.append((answer.query_id, answer.refused or "no match", *[None] * 10))
    return tables.table([ANSWERS, *rows])


def _records(source: Path, layout: ArrayLayout) -> Sequence[Record]:
    if not source.exists():
        raise InputError("IMAGE: there is no such file or folder; check the path")
    if source.is_dir() or source.suffix.lower() in (".csv", ".tsv"):
        try:
            return read_manifest(source, role=Role.REAL, arrays=layout).records
        except InputError as error:
            raise for_flag(error, "IMAGE") from error
    recognised = recognise(source)
    if recognised is None:
        raise InputError(f"IMAGE: {source.name} is of no known image format")
    return records_of([Entry(source.name, source, recognised)], layout).records


def _answer(name: str, fields: dict[str, np.ndarray], index: PreparedIndex) -> LookupAnswer:
    same = np.flatnonzero((index.decoded == fields["decoded"][None]).all(1))
    if len(same):
        return LookupAnswer(name, (_match(int(same[0]), How.SAME_PIXELS, index),))
    canvas = fields["canvas"][None].astype(np.float32) / _LEVELS
    found = PointSet.packed(extract_one(canvas, fields["content"][None]))
    if not found.comparable[0]:
        return LookupAnswer(name, refused=points.TOO_LITTLE)
    pixels = fields["pixels"][None]
    query = Side(
        take=lambda rows: pixels[rows],
        low=np.zeros((1, 1, 1), np.float32),
        embeddings=np.zeros((1, index.side.embeddings.shape[1]), np.float32),
        points=found,
    )
    # What is less than alike is no answer, and its pixels need not be compared.
    pairs = look(query, index.side, index.local, apart=False, least_evidence=index.rule.evidence)
    pairs = pairs[index.rule.alike(pairs)]
    pairs = pairs[np.lexsort((pairs["reference"], -pairs["evidence"]))]
    copies = index.rule.copies(pairs)
    order = np.argsort(~copies, kind="stable")
    matches = [
        dataclasses.replace(
            _match(int(row["reference"]), How.COPY if copy else How.SIMILAR, index),
            verified_score=score_of(row),
            flip=FLIP_NAMES[int(row["flip"])],
            rotation_deg=float(row["rotation_deg"]),
            scale=float(row["scale"]),
            points=float(row["points"]),
            evidence=float(row["evidence"]),
            p_value=index.rule.p_value(float(row["evidence"])),
        )
        for row, copy in zip(pairs[order], copies[order], strict=True)
    ]
    return LookupAnswer(name, tuple(matches))


def _match(row: int, how: How, index: PreparedIndex) -> LookupMatch:
    others = np.flatnonzero(index.group == index.group[row])
    return LookupMatch(
        image_id=index.image_ids[row],
        subject_id=index.subject_ids[row],
        how=how,
        in_group=tuple(index.image_ids[other] for other in others if other != row),
    )
