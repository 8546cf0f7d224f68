"""Ratings of readers, from their files to agreement, their own errors and the adjudicated rate."""

from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.jobs.rate_agreement import rate_agreement, summed_up
from deepssim_jax.jobs.ratings import Rating, ReaderRatings, read_all
from deepssim_jax.jobs.review_source import Job

HEAD = "page,reader,pair,rating\n"


def key(*, blind: bool = True) -> dict:
    """40 sampled pairs of 200 images, and 10 pairs of known truth of each kind."""
    rows = [
        {"pair": f"s{i}", "kind": "sample", "stratum": "near_duplicate" if i < 20 else "unrelated"}
        for i in range(40)
    ]
    for kind in ("known_copy", "known_unrelated"):
        rows += [{"pair": f"{kind}{i}", "kind": kind, "stratum": ""} for i in range(10)]
    return {
        "page": "abc",
        "reading": "blind" if blind else "open",
        "strata": {"near_duplicate": 20, "unrelated": 180},
        "copies": ["exact_duplicate", "near_duplicate"],
        "rate": {"value": 0.1, "low": 0.06, "high": 0.15, "level": 0.95, "count": 20, "total": 200},
        "pairs": rows,
    }


def reader(name: str, **changed: str) -> ReaderRatings:
    """Agrees with the program but where said otherwise; finds 9 of 10 known copies, refuses all others."""
    ratings = {f"s{i}": "copy" if i < 20 else "no" for i in range(40)}
    ratings |= {f"known_copy{i}": "near" if i else "no" for i in range(10)}
    ratings |= {f"known_unrelated{i}": "no" for i in range(10)}
    ratings |= changed
    return ReaderRatings("abc", name, {p: Rating(x) for p, x in ratings.items() if x})


def summed(*readers: ReaderRatings, adjudicator: ReaderRatings | None = None, blind: bool = True):
    return summed_up(key(blind=blind), readers, adjudicator=adjudicator, level=0.95, job=Job.AUDIT)


def test_a_reader_is_measured_by_pairs_of_known_truth() -> None:
    (found,) = summed(reader("a")).readers
    assert (found.sensitivity.count, found.sensitivity.total) == (9, 10)
    assert (found.specificity.count, found.specificity.total) == (10, 10)
    assert (found.rated, found.copies) == (40, 20)


def test_the_rate_is_weighted_by_stratum() -> None:
    found = summed(reader("a", s0="no", s1="no", s39="near"))
    assert found.rate.value == pytest.approx(0.1 * 18 / 20 + 0.9 * 1 / 20)
    assert found.rate.low < 0.1 * 18 / 20 < found.rate.high


def test_three_readers_settle_by_majority_and_two_do_not() -> None:
    two = summed(reader("a"), reader("b", s0="no"))
    assert two.disagreements == ("s0",) and two.rate.undecided == 1
    three = summed(reader("a"), reader("b", s0="no"), reader("c", s0="no"))
    assert three.rate.undecided == 0
    assert three.rate.value == pytest.approx(0.1 * 19 / 20)


def test_an_adjudicator_settles_and_takes_no_part_in_the_agreement() -> None:
    last = ReaderRatings("abc", "c", {"s0": Rating.NO, "s30": Rating.COPY})
    found = summed(reader("a"), reader("b", s0="no"), adjudicator=last)
    assert found.rate.undecided == 0
    # What the readers agree on stays.
    assert found.rate.value == pytest.approx(0.1 * 19 / 20)
    assert list(found.cohen) == [("a", "b")] and found.fleiss.pairs == 40


def test_copy_and_near_differ_for_agreement_and_not_for_the_rate() -> None:
    found = summed(reader("a"), reader("b", s0="near"))
    assert found.ac1.value < 1 and found.ac1_copies.value == 1.0
    assert found.disagreements == ("s0",) and found.rate.undecided == 0


def test_an_open_reading_must_be_complete_and_a_blind_one_need_not() -> None:
    some = reader("a", s3="", s30="")
    assert summed(some).rate.rated == 38
    found = summed(some, blind=False)
    assert found.rate is None and "2 of 40 pairs have no rating" in found.reason


def test_a_stratum_without_ratings_gives_no_rate() -> None:
    found = summed(reader("a", **{f"s{i}": "" for i in range(20, 40)}))
    assert found.rate is None and "calls unrelated was rated" in found.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must have the columns"),
        ("a,b\n", "must have the columns"),
        (HEAD, "holds no rating"),
        (HEAD + "abc,a,s0\n", "line 2: it lacks its pair or its rating"),
        ("page|reader|pair|rating\nabc|a|s0|no\n", "separated by commas, semicolons or tabs"),
        (HEAD + "abc,a,s0,yes\n", "line 2: its rating must be copy, near or no"),
        (HEAD + "abc,a,s0,no\nabc,a,s0,no\n", "line 3: this pair was rated before"),
        (HEAD + "abc,a,s0,no\nabd,a,s1,no\n", "several pages"),
        (HEAD + "abc,a,s0,no\nabc,b,s1,no\n", "several readers"),
        (HEAD + "abc,,s0,no\n", "names no reader"),
        (HEAD + 'abc,"a,s0,no\n', "line 2: its quotes"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ratings_a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="--ratings='ratings_a.csv'") as error:
        ReaderRatings.read(path, flag="--ratings")
    assert words in str(error.value)


def test_two_files_of_one_reader_or_of_two_pages_are_refused(tmp_path: Path) -> None:
    for name, row in (("x", "abc,a,s0,no"), ("y", "abc,a,s1,no"), ("z", "abd,b,s1,no")):
        (tmp_path / name).write_text(f"{HEAD}{row}\n")
    with pytest.raises(ValueError, match="file 2 is of the same reader"):
        read_all([tmp_path / "x", tmp_path / "y"], flag="--ratings")
    with pytest.raises(ValueError, match="different pages"):
        read_all([tmp_path / "x", tmp_path / "z"], flag="--ratings")


@pytest.mark.parametrize(
    "data",
    [
        b"page;reader;pair;rating\nabc;a;s0;near\n",
        b"sep=;\npage;reader;pair;rating\nabc;a;s0;near\n",
        b"Page,Reader,Pair,Rating,\nabc,a,s0,NEAR ,\n,,,,\n",
        b"pair\tpage\trating\treader\ns0\tabc\tNear\ta\n",
        f"{HEAD}abc,a,s0,near\n".encode("utf-16"),
    ],
)
def test_ratings_are_read_as_manifests_are(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(data)
    found = ReaderRatings.read(tmp_path / "x.csv", flag="--ratings")
    assert (found.page, found.reader, found.ratings) == ("abc", "a", {"s0": Rating.NEAR})


def test_a_folder_is_no_file_of_ratings(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match="--ratings='x' is a folder; give the file"):
        ReaderRatings.read(tmp_path / "x", flag="--ratings")


def test_a_reader_cannot_settle_disagreements_of_the_readers(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("deepssim_jax.jobs.rate_agreement.job_of", lambda root: Job.AUDIT)
    files = [tmp_path / f"{name}.csv" for name in "ab"]
    for path in files:
        path.write_text(f"{HEAD}abc,{path.stem},s0,no\n")
    with pytest.raises(ValueError, match="--adjudicator: its file is of one of the readers"):
        rate_agreement(tmp_path, files, adjudicator=files[0])


def test_ratings_of_spreadsheets_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(
        ("\ufeff" + HEAD + "abc,a,s0,near\n").replace("\n", "\r\n").encode()
    )
    assert ReaderRatings.read(tmp_path / "x", flag="--ratings").ratings == {"s0": Rating.NEAR}
    assert np.array_equal([x.is_copy for x in Rating], [True, True, False])
