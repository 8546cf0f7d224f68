"""Exact search against float64 NumPy, whatever the tiles, devices, processes and stops."""

import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from benchmarks.methods.rows_on_disk import open_rows
from deepssim_jax import parallel
from deepssim_jax.scoring import pairs, tiles
from deepssim_jax.scoring.tiles import Tiling
from tests.kept import journal

SMALL = Tiling(rows=16, tile=64, strips=2, spans=3)
HALF = Tiling(rows=16, tile=64, strips=2, spans=3, half=True)
ONE_TILE = Tiling(rows=16, tile=64, half=True, wide=(1, 6))  # as on CPUs with bfloat16


def unit(n: int, seed: int, dim: int = 24) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scores(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    return np.asarray(queries, np.float64) @ np.asarray(references, np.float64).T


def agrees(found: pairs.Neighbours, queries: np.ndarray, references: np.ndarray, k: int) -> None:
    """Ids and scores are those of float64, up to ties of float32."""
    exact = scores(queries, references)
    best = -np.sort(-exact, axis=1)[:, :k]
    assert found.scores.dtype == np.float32 and found.indices.dtype == np.int32
    np.testing.assert_allclose(found.scores, np.clip(best, -1, 1), atol=1e-6)
    named = np.take_along_axis(exact, found.indices.astype(int), axis=1)
    np.testing.assert_allclose(named, best, atol=1e-6)
    assert all(len(set(row)) == k for row in found.indices)


@pytest.mark.parametrize("tiling", [None, SMALL, HALF, ONE_TILE])
@pytest.mark.parametrize(
    ("n", "m", "k"), [(1, 1, 1), (7, 13, 13), (131, 263, 10), (97, 509, 200), (300, 31, 5)]
)
def test_equals_a_full_sort(n: int, m: int, k: int, tiling: Tiling | None) -> None:
    queries, references = unit(n, 0), unit(m, 1)
    found = pairs.nearest(queries, references, k=k, tiling=tiling)
    agrees(found, queries, references, k)
    expected = np.argsort(-scores(queries, references), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.indices, expected)


def test_k_of_1024() -> None:
    queries, references = unit(5, 0), unit(3000, 1)
    for tiling in (SMALL, HALF, ONE_TILE, None):
        agrees(pairs.nearest(queries, references, k=1024, tiling=tiling), queries, references, 1024)


@pytest.mark.parametrize("tiling", [SMALL, HALF, ONE_TILE])
@pytest.mark.parametrize("ring", [False, True])
def test_ties_go_to_the_smaller_index(tiling: Tiling, ring: bool) -> None:
    references = np.tile(unit(40, 2), (10, 1))  # every vector ten times, far from one another
    queries = np.concatenate([unit(30, 3), references[:7], np.zeros((2, 24), np.float32)])
    found = pairs.largest_products(queries, references, k=25, tiling=tiling, ring=ring)
    agrees(found, queries, references, 25)
    rows = scores(queries, references[:40]).astype(np.float32)
    expected = np.argsort(-np.tile(rows, (1, 10)), axis=1, kind="stable")[:, :25]
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_array_equal(found.indices[-1], np.arange(25))  # a zero vector: all tie


@pytest.mark.parametrize("tiling", [SMALL, HALF, ONE_TILE])
def test_near_ties(tiling: Tiling) -> None:
    rng = np.random.default_rng(4)
    references = unit(1, 5) + 1e-7 * rng.normal(size=(400, 24)).astype(np.float32)
    queries = np.concatenate([references[:9], unit(20, 6)])
    agrees(pairs.nearest(queries, references, k=10, tiling=tiling), queries, references, 10)


def test_halves_alone_would_be_wrong() -> None:
    """bfloat16 cannot order these; the margin is seen to fail, and float32 decides."""
    rng = np.random.default_rng(7)
    references = unit(1, 5) + 1e-3 * rng.normal(size=(640, 24)).astype(np.float32)
    references /= np.linalg.norm(references, axis=1, keepdims=True)
    queries = unit(32, 8)
    by_halves = np.asarray(tiles.half_products(queries, references.astype(jnp.bfloat16)))
    exact = np.argsort(-scores(queries, references), axis=1)[:, :10]
    assert (np.argsort(-by_halves, axis=1)[:, :10] != exact).mean() > 0.5
    for tiling in (HALF, ONE_TILE):
        agrees(pairs.nearest(queries, references, k=10, tiling=tiling), queries, references, 10)


def test_only_what_halves_cannot_prove_is_searched_again(monkeypatch) -> None:
    """One query among well separated ones has references that bfloat16 cannot tell apart."""
    rng = np.random.default_rng(13)
    close = unit(1, 14) + 1e-4 * rng.normal(size=(60, 24)).astype(np.float32)
    references = np.concatenate([np.tile(np.eye(24, dtype=np.float32), (4, 1)), close])
    queries = np.eye(24, dtype=np.float32)[rng.integers(0, 24, 70)]
    queries[41] = close[7]
    asked, chosen = [], pairs.ChosenRows

    def seen(source: np.ndarray, numbers: np.ndarray) -> pairs.ChosenRows:
        asked.append(numbers.tolist())
        return chosen(source, numbers)

    monkeypatch.setattr(pairs, "ChosenRows", seen)
    found = pairs.nearest(queries, references, k=3, tiling=ONE_TILE)
    agrees(found, queries, references, 3)
    assert asked == [[41]]


@pytest.mark.parametrize("length", [1.0, 30.0])
@pytest.mark.parametrize("dim", [3, 24, 1024])
def test_how_far_halves_may_be(length: float, dim: int) -> None:
    """The bound holds for every pair, also where rounding errors add up, and is no wild guess."""
    queries, references = length * unit(50, 1, dim), unit(400, 2, dim)
    # Half a unit in the last place of bfloat16 above a number that it has: all errors of one sign.
    queries[0], references[0] = 1 + 2.0**-8.5, 1 + 2.0**-8.5
    made = tiles.split_bf16(jnp.asarray(references))
    far = np.abs(np.asarray(tiles.half_products(queries, made.low)) - scores(queries, references))
    bound = np.asarray(tiles.half_error(queries, *made.norms))
    assert (far.max(1) <= bound).all() and bound[0] < 1.5 * far[0].max()


TILINGS = (None, SMALL, HALF, ONE_TILE, Tiling(rows=64, tile=32))


@pytest.mark.parametrize(
    ("devices", "ring", "tiling"),
    [
        *((1, False, tiling) for tiling in TILINGS[1:]),
        (1, True, SMALL),
        *((8, ring, tiling) for ring in (False, True) for tiling in TILINGS),
    ],
)
def test_devices_and_tiles_do_not_show(devices: int, ring: bool, tiling: Tiling | None) -> None:
    queries, references = unit(211, 9), unit(487, 10)
    mesh = parallel.data_mesh(devices)
    found = pairs.nearest(queries, references, k=9, mesh=mesh, tiling=tiling, ring=ring)
    whole = pairs.nearest(queries, references, k=9, mesh=parallel.data_mesh(1))
    np.testing.assert_array_equal(found.indices, whole.indices)
    np.testing.assert_allclose(found.scores, whole.scores, atol=3e-7)


@pytest.mark.parametrize(
    ("tiling", "ring"), [(None, False), (HALF, False), (ONE_TILE, False), (SMALL, True)]
)
def test_own_group_is_left_out_however_large_it_is(ring: bool, tiling: Tiling | None) -> None:
    """3,000 references of one group are the nearest of all; more than `nearest` keeps."""
    rng = np.random.default_rng(3)
    close = unit(1, 0) + 0.05 * rng.normal(size=(3000, 24)).astype(np.float32)
    references = np.concatenate([close, unit(40, 1)])[rng.permutation(3040)]
    references /= np.linalg.norm(references, axis=1, keepdims=True)
    theirs = np.where((references @ unit(1, 0)[0]) > 0.8, 7, np.arange(3040) % 5)
    assert (theirs == 7).sum() >= 3000
    queries = np.concatenate([close[:20], unit(20, 2)])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    own = np.concatenate([np.full(20, 7), np.arange(20) % 6])
    found = pairs.nearest(
        queries, references, k=4, tiling=tiling, ring=ring, groups=(own, theirs),
        mesh=parallel.data_mesh(4),
    )  # fmt: skip
    exact = np.where(own[:, None] == theirs[None], -np.inf, scores(queries, references))
    order = np.argsort(-exact, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.scores, np.take_along_axis(exact, order, 1), atol=1e-6)


@pytest.mark.parametrize("tiling", [None, SMALL, HALF, ONE_TILE])
def test_fewer_admissible_references_than_wanted(tiling: Tiling | None) -> None:
    queries, references = unit(6, 0), unit(300, 1)
    theirs = np.zeros(300, int)
    theirs[[5, 131]] = 1
    own = np.array([0, 0, 0, 1, 1, 2])
    found = pairs.nearest(queries, references, k=3, tiling=tiling, groups=(own, theirs))
    assert (found.indices[:3, 2] == -1).all() and (found.scores[:3, 2] == -2).all()
    assert {tuple(sorted(row[:2])) for row in found.indices[:3].tolist()} == {(5, 131)}
    exact = np.where(own[:, None] == theirs[None], -np.inf, scores(queries, references))
    order = np.argsort(-exact, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(found.indices[3:], order[3:])
    # One group on both sides: nothing is admissible, and nothing is searched again.
    none = pairs.nearest(queries, references, k=3, tiling=tiling, groups=(own[:6] * 0, theirs * 0))
    assert (none.indices == -1).all() and (none.scores == -2).all()


def test_references_that_do_not_fit_come_in_portions(monkeypatch) -> None:
    queries, references = unit(50, 9), unit(487, 10)
    monkeypatch.setattr(pairs, "_BLOCK", 16)
    small = dataclasses.replace(SMALL, resident_bytes=4 * 24 * 200)
    agrees(pairs.nearest(queries, references, k=7, tiling=small), queries, references, 7)


@pytest.mark.parametrize("ring", [False, True])
def test_histogram_of_all_pairs(ring: bool) -> None:
    queries, references = unit(83, 11), unit(301, 12)
    found = pairs.histogram(queries, references, bins=50, tiling=SMALL, ring=ring)
    counts, edges = np.histogram(scores(queries, references), bins=50, range=(-1, 1))
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_allclose(found.edges, edges, atol=1e-12)
    assert found.counts.sum() == 83 * 301
    opposite = pairs.histogram(references[:1], -references[:1], bins=4)
    assert opposite.counts.tolist() == [1, 0, 0, 0]
    assert pairs.histogram(references[:1], references[:1], bins=4).counts.tolist() == [0, 0, 0, 1]


def test_both_ways_of_counting_occurrences() -> None:
    place = np.random.default_rng(0).integers(0, 21, size=(7, 50)).astype(np.int32)
    expected = [np.bincount(row, minlength=21)[:20] for row in place]
    np.testing.assert_array_equal(tiles._scattered(place, 20), expected)
    np.testing.assert_array_equal(tiles._compared(place, 20), expected)


def test_reads_maps_and_stores(tmp_path: Path) -> None:
    queries, references = unit(40, 0), unit(90, 1)
    np.save(tmp_path / "queries.npy", queries)
    spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/references.zarr/"}
    made = tensorstore.open(
        spec,
        create=True,
        dtype=tensorstore.float32,
        shape=references.shape,
        chunk_layout=tensorstore.ChunkLayout(chunk_shape=(32, 24)),
    ).result()
    made[...] = references
    opened = open_rows(tmp_path / "queries.npy"), open_rows(tmp_path / "references.zarr")
    assert isinstance(opened[0], np.memmap)
    found = pairs.nearest(*opened, k=6)
    np.testing.assert_array_equal(found.indices, pairs.nearest(queries, references, k=6).indices)
    by_address = open_rows(f"file://{tmp_path}/references.zarr/")
    np.testing.assert_array_equal(np.asarray(by_address[3:9]), references[3:9])
    for wrong in ("none.npy", "none", "queries.npy/"):
        with pytest.raises(ValueError, match="cannot open"):
            open_rows(tmp_path / wrong if wrong != "queries.npy/" else f"file://{tmp_path}/q/")


def test_a_journal_goes_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pairs, "_BLOCK", 32)
    mesh = parallel.data_mesh(1)
    queries, references = unit(150, 0), unit(90, 1)
    how = {"k": 4, "tiling": SMALL, "mesh": mesh}
    whole = pairs.nearest(queries, references, **how)
    seen = []

    class Breaks:
        """Rows that fail after some time, as a killed run does."""

        shape = queries.shape

        def __getitem__(self, rows: slice) -> np.ndarray:
            seen.append(rows.start)
            if len(seen) == 3:
                raise OSError("gone")
            return queries[rows]

    with journal(tmp_path) as kept, pytest.raises(OSError, match="gone"):
        pairs.nearest(Breaks(), references, journal=kept, **how)
    assert len(list(tmp_path.glob("work/steps/test.nearest-*.npy"))) == 2
    with journal(tmp_path) as kept:
        again = pairs.nearest(Breaks(), references, journal=kept, **how)
    assert seen[3] == 64  # what was done is not read again
    np.testing.assert_array_equal(again.indices, whole.indices)
    np.testing.assert_array_equal(again.scores, whole.scores)
    with journal(tmp_path) as kept:  # another k is another search, and so are groups
        other = pairs.nearest(queries, references, journal=kept, k=5, tiling=SMALL, mesh=mesh)
        groups = np.zeros(150, int), np.arange(90)
        apart = pairs.nearest(queries, references, journal=kept, groups=groups, **how)
    np.testing.assert_array_equal(other.indices[:, :4], whole.indices)
    assert not (apart.indices == 0).any()


PROCESS = """
import json, sys
import jax
import jax.numpy as jnp
import numpy as np
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from deepssim_jax.scoring import pairs
from deepssim_jax.scoring.tiles import Tiling
rows = np.load(sys.argv[3], mmap_mode="r")
read = []
class Noted:
    def __init__(self, rows): self.rows, self.shape = rows, rows.shape
    def __getitem__(self, part):
        read.append((part.start, part.stop))
        return self.rows[part]
queries, references = Noted(rows[:61]), rows[61:]
out = {}
for ring in (False, True):
    found = pairs.nearest(
        queries, references, k=5, ring=ring, tiling=Tiling(rows=8, tile=32),
    )
    out[str(ring)] = found.indices.tolist()
out["read"] = sum(stop - start for start, stop in read) / 2
print(json.dumps(out))
"""


def test_two_processes(tmp_path: Path) -> None:
    known = subprocess.run(["getent", "hosts", socket.gethostname()], stdout=subprocess.DEVNULL)
    if known.returncode:
        pytest.skip("this machine's own name has no address, which JAX's processes need on a CPU")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rows = unit(61 + 210, 13)
    np.save(tmp_path / "rows.npy", rows)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, f"127.0.0.1:{port}", str(rank), "rows.npy"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    answers = []
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err[-2000:]
        answers.append(json.loads(out.splitlines()[-1]))
    expected = np.argsort(-scores(rows[:61], rows[61:]), axis=1, kind="stable")[:, :5].tolist()
    for answer in answers:
        assert answer["False"] == answer["True"] == expected
    assert sum(answer["read"] for answer in answers) == 61  # each reads its own part, once


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="one d"):
        pairs.nearest(unit(3, 0), unit(3, 0, dim=8), k=1)
    with pytest.raises(ValueError, match="k 4 must be a whole number"):
        pairs.nearest(unit(3, 0), unit(3, 0), k=4)
    with pytest.raises(ValueError, match=r"groups of \(2,\) and \(3,\) must be one a row"):
        pairs.nearest(unit(3, 0), unit(3, 0), k=1, groups=(np.zeros(2, int), np.zeros(3, int)))
    with pytest.raises(ValueError, match="at least 1"):
        Tiling(rows=0, tile=8)
    assert pairs.nearest(unit(3, 0)[:0], unit(3, 0), k=2).scores.shape == (0, 2)
    assert jax.device_count() == 8


IDS = {
    "large": np.arange(4, dtype=np.int64) * 2**32,
    "fractions": np.array([0.1, 0.2, 0.3, 0.4]),
    "negative": -np.arange(1, 5),
    "texts": np.array(["a", "b", "c", "dd"]),
    "list": ["P1", "p1", "1", "01"],
    "tuples": [("a", 1), ("a", "1"), 1, 2.5],
    "dates": np.arange("2020-01-01", "2020-01-05", dtype="datetime64[D]"),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_kind_are_told_apart_and_none_is_merged(kind: str) -> None:
    rows, ids = unit(4, 0), IDS[kind]
    found = pairs.nearest(rows, rows, k=4, groups=(ids, ids)).indices
    assert [sorted(row) for row in found.tolist()] == [
        [-1, *(x for x in range(4) if x != row)] for row in range(4)
    ]
    one = [ids[0]] * 4  # all of one patient: nothing is admissible
    assert (pairs.nearest(rows, rows, k=1, groups=(one, one)).indices == -1).all()


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (np.array([1.0, np.nan, 2.0]), "row 1 of the queries has no id"),
        (["a", "b", None], "row 2 of the queries has no id"),
        ([[1], [2], [3]], "cannot be hashed"),
        (None, "must be one a row"),
        ("abc", "must be one a row"),
    ],
)
def test_ids_that_say_nothing_are_refused(ids: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pairs.nearest(unit(3, 0), unit(3, 0), k=1, groups=(ids, ["x", "y", "z"]))


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        ([1, 2, 3], ["1", "2", "3"]),
        (np.arange(3), np.array(["0", "1", "2"])),
        (["P1", "P2", 3], ["P1", "P2", 3]),
    ],
)
def test_numbers_and_texts_are_not_taken_for_ids_of_two_patients(own, theirs) -> None:
    with pytest.raises(ValueError, match="groups: some ids are texts and others are not"):
        pairs.nearest(unit(3, 0), unit(3, 0), k=1, groups=(own, theirs))


def test_ids_of_two_types_are_equal_where_their_values_are() -> None:
    rows = unit(3, 0)
    found = pairs.nearest(rows, rows, k=1, groups=(np.arange(3, dtype=np.int16), [0, 1, 2.0]))
    assert not (found.indices[:, 0] == np.arange(3)).any()
