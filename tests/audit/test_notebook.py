"""Results in a notebook: what they show, that nothing becomes markup, and the same rows as the files."""

import csv
import html.parser
import io
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from deepssim_jax.audit import outputs, replica_outputs, report, tables, utility_report
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.replica_result import (
    Kind,
    LevelMatch,
    LevelThresholds,
    ReplicaResult,
    VolumeMatch,
)
from deepssim_jax.data.table_rows import plain
from deepssim_jax.detection.assessment import Assessment, Verdict
from deepssim_jax.jobs import duplicates_outputs
from deepssim_jax.jobs.duplicates_result import DuplicatePair, DuplicatesResult
from deepssim_jax.jobs.how import How
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.evidence import NormalLaw
from deepssim_jax.scoring.volume_measure import MEASURES
from deepssim_jax.scoring.volume_search import Level
from tests.audit import test_report as made
from tests.audit.test_utility import flat_result

HOSTILE = made.HOSTILE


class Page(html.parser.HTMLParser):
    """The texts of a page's cells and paragraphs, and its tags."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not attrs
        self.texts.append("")

    def handle_data(self, data):
        self.texts[-1] += data


def replicas() -> ReplicaResult:
    empty = np.zeros(0)
    thresholds = LevelThresholds(
        3.0, 1.0, "o", empty, empty, empty, None, None, True, {}, True, True, NormalLaw(0.0, 1.0, 0)
    )
    measures = dict.fromkeys(MEASURES[Level.VOXEL], 0.25)
    levels = {
        Level.VOXEL: LevelMatch(
            f"real{HOSTILE}", "p", 4.5, 1e-6, Kind.REPLICA, measures, False, 0.0, 0.0
        )
    }
    missing = VolumeMatch("other", {}, Kind.DIFFERENT, 0, False)
    matches = (VolumeMatch(f"=synthetic{HOSTILE}", levels, Kind.REPLICA, 1, False, 1e-6), missing)
    counts = {"synthetic": 2, "real": 3, "replicas": 1, "same_person": 0, "disputed": 0}
    assessment = Assessment(Verdict.COPIES_FOUND, (), clopper_pearson(1, 2))
    return ReplicaResult(
        assessment, counts, (), (), {}, {}, matches, {Level.VOXEL: thresholds}, (), None, None, ()
    )


def duplicates(pairs: int) -> DuplicatesResult:
    found = tuple(
        DuplicatePair(f"{n}{HOSTILE}", "b", None, None, None, None, How.SAME_PIXELS)
        for n in range(pairs)
    )
    similar = DuplicatePair(
        "c", "d", "P1", None, None, None, How.SIMILAR, 0.5, points=9.0, evidence=1.0
    )
    names = (
        "images",
        "groups",
        "in_groups",
        "surplus",
        "same_file",
        "same_pixels",
        "copies",
        "similar",
    )
    counts = dict.fromkeys((*names, "not_comparable", "unreadable"), pairs)
    verdict = Verdict.COPIES_FOUND if pairs else Verdict.NONE_FOUND_WITHIN_LIMITS
    return DuplicatesResult(
        assessment=Assessment(verdict, (), clopper_pearson(pairs, 100)),
        counts=counts,
        exclusions=(),
        notes=(),
        settings={},
        versions={},
        groups=(),
        pairs=found,
        similar=(similar,),
        splits=(),
        crossings=(),
        suspicions=(),
        clean=(),
        thresholds={},
    )


RESULTS = {
    "audit": (lambda: made.result(12, 1), "Copies found"),
    "replicas": (replicas, "Replicas found"),
    "duplicates": (lambda: duplicates(12), "Duplicates found"),
    "no duplicates": (lambda: duplicates(0), "No duplicates found"),
    "utility": (lambda: flat_result(2.0), "Are the synthetic images still useful?"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_it_shows_the_answer_and_nothing_becomes_markup(name):
    make, title = RESULTS[name]
    result = make()
    page = Page(result._repr_html_())
    assert page.tags <= {"div", "p", "strong", "table", "tr", "th", "td", "code"}
    assert title in [text.strip() for text in page.texts]
    if name not in ("utility", "no duplicates"):
        assert any(HOSTILE.strip() in text for text in page.texts)
    assert "<script" not in result._repr_html_() and "data:" not in result._repr_html_()


def test_the_first_pairs_are_shown_and_the_rest_counted():
    page = Page(made.result(12, 1)._repr_html_())
    shown = [text for text in page.texts if text.startswith("synthetic") and HOSTILE[:7] in text]
    assert len(shown) == 10
    assert any(text.startswith("3 more rows:") for text in page.texts)
    assert "0.990" in [text.strip() for text in page.texts]


def test_the_answer_is_that_of_the_internal_report():
    result = made.result(12, 1)
    answer = report.answer(result, Edition.INTERNAL)
    page = report._render(result, (), edition=Edition.INTERNAL, salt=b"")
    texts = [text.strip() for text in Page(result._repr_html_()).texts]
    for words in (
        answer.title,
        *answer.sentences,
        *(word for fact in answer.facts for word in fact),
    ):
        assert words in texts
        assert words in page


def rows_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


@pytest.mark.parametrize(
    ("make", "content"),
    [
        (lambda: made.result(3, 1), lambda x: tables.matches(x.pairs, ranked=True).csv()),
        (replicas, lambda x: replica_outputs.replica_table(x).csv()),
        (lambda: duplicates(2), lambda x: duplicates_outputs.pair_table(x).csv()),
        (lambda: flat_result(2.0), lambda x: utility_report.table(x).csv()),
    ],
    ids=["audit", "replicas", "duplicates", "utility"],
)
def test_a_data_frame_has_the_rows_of_the_file(make, content):
    """Numbers are numbers, and text is as it is: no apostrophe against formulas."""
    result = make()
    frame, (head, *rows) = result.to_pandas(), rows_of(content(result))
    assert list(frame.columns) == head and len(frame) == len(rows) > 1
    for row, expected in zip(frame.itertuples(index=False), rows, strict=True):
        for value, text in zip(row, expected, strict=True):
            if pandas.isna(value):
                assert text == ""
            elif isinstance(value, float):
                assert float(text) == pytest.approx(value, abs=5e-7)
            else:
                assert str(value) == plain(text)


def test_types_of_a_data_frame():
    frame = made.result(3, 1).to_pandas()
    assert frame["verified_score"].dtype == float and frame["rank"].tolist() == [1, 2, 3, 4]
    similar = duplicates(2).to_pandas()
    assert similar["how"].tolist() == ["same_pixels", "same_pixels", "similar"]
    assert similar["local_evidence"].isna().tolist() == [True, True, False]


def test_without_pandas_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        duplicates(1).to_pandas()


def test_only_the_internal_files_come_from_the_same_answer(tmp_path: Path):
    """The shared edition hides small counts in it; a notebook, which is the institution's, does not."""
    result = made.result(2, 1)
    shared, internal = (
        report.answer(result, edition) for edition in (Edition.SHARED, Edition.INTERNAL)
    )
    assert ("2", "exact copies") in internal.facts
    assert ("not shown", "exact copies") in shared.facts
    assert shared.sentences[1:] == (
        "Some real images could not be read; copies of them cannot be detected.",
    )
    assert "report.html" in outputs.NAMES
