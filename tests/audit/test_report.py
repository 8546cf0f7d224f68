"""The two reports: nothing from a file becomes markup, nothing of a person is given away."""

import dataclasses
import html.parser
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from deepssim_jax import testing
from deepssim_jax.audit import page, report
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.result import (
    AuditResult,
    GalleryItem,
    Label,
    Match,
)
from deepssim_jax.data.manifest import Role
from deepssim_jax.detection.assessment import Assessment, Cause, Reason, Subjects, Verdict
from deepssim_jax.detection.result import Exclusion
from deepssim_jax.ops.transform import FLIP_NAMES
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.match import Moved
from deepssim_jax.scoring.verify import verify_pairs
from tests.audit import made
from tests.kept import within

HOSTILE = "<script>alert('x')</script>\"'\n../../etc/passwd&amp;"


def match(number: int, label: Label = Label.EXACT) -> Match:
    return Match(
        synthetic_id=f"synthetic{number}{HOSTILE}",
        real_id=f"real{number}{HOSTILE}",
        subject_id=f"person{number}{HOSTILE}",
        embedding_score=0.9,
        verified_score=0.99 if label is not Label.UNRELATED else 0.4,
        label=label,
        p_value=0.01,
        q_value=0.02,
        flip="horizontal",
        rotation_deg=-3.2,
        shift_y=1.0,
        shift_x=2.0,
        scale=1.05,
    )


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ((1.0, 0.0, 0.0, 1.0), "in place"),
        ((0.6, 0.8, -0.8, 0.6), "in place"),  # a rotation, which another field says
        ((1.0, 0.0, 0.0, 0.7), "stretched 1.43 times in one direction"),
        ((1.0, 0.2, 0.0, 1.0), "stretched 1.22 times in one direction"),
    ],
)
def test_another_aspect_and_a_shear_are_said(matrix: tuple[float, ...], words: str) -> None:
    assert page.transformation(Moved(matrix=matrix)) == words


def test_movements_are_said_in_the_order_in_which_they_give_the_copy() -> None:
    real = testing.phantom_images(2)[:1]
    turned = Image.fromarray(real[0]).rotate(14, Image.Resampling.BICUBIC, fillcolor=0)
    copy = np.asarray(ImageOps.mirror(turned), np.float32)[None]
    found = verify_pairs(copy, real)
    words = page.transformation(
        Moved(
            flip=FLIP_NAMES[int(found.flip[0])],
            rotation_deg=round(float(found.rotation_deg[0])),
            matrix=tuple(found.matrix[0].ravel().tolist()),
        )
    )
    assert words == "turned 14.0° to the left, then mirrored left-right"


def result(exact: int, near: int, unrelated: int = 50) -> AuditResult:
    labels = [Label.EXACT] * exact + [Label.NEAR] * near + [Label.UNRELATED] * unrelated
    nearest = tuple(match(n, label) for n, label in enumerate(labels))
    total = len(labels)
    return AuditResult(
        assessment=Assessment(
            verdict=Verdict.COPIES_FOUND if exact + near else Verdict.INCONCLUSIVE,
            reasons=(Reason(Cause.UNREADABLE, (Role.REAL,), 3),),
            copy_rate=clopper_pearson(exact + near, total),
            subjects=Subjects(exact + near, 100),
        ),
        counts={
            "real": 100,
            "synthetic": total,
            "holdout": 0,
            "unreadable_real": 3,
            "unreadable_synthetic": 0,
        },
        thresholds=(
            limits := made.thresholds(
                false_rate=clopper_pearson(0, 30),
                planted_recall=clopper_pearson(29, 30),
                planted_near_recall=None,
            )
        ),
        thresholds_to_share=limits,
        classes={"exact_duplicate": exact, "near_duplicate": near, "unrelated": unrelated},
        holdout_rate=None,
        synthetic_to_holdout_rate=None,
        subjects_known=True,
        nearest=nearest,
        pairs=tuple(m for m in nearest if m.label is not Label.UNRELATED),
        distributions={
            "synthetic_to_real": np.linspace(0.3, 0.99, total),
            "real_to_real": np.linspace(0.2, 0.9, 60),
        },
        exclusions=tuple(
            Exclusion("real", f"broken{n}{HOSTILE}", f"bad {HOSTILE}") for n in (0, 1, 2)
        ),
        notes=("A note.",),
        settings={"size": 128, "subject_regex": HOSTILE},
        versions={"jax": "1"},
    )


def written(tmp_path: Path, found: AuditResult) -> tuple[str, str]:
    picture = np.zeros((8, 8), np.uint8)
    gallery = [GalleryItem(m, picture, picture, picture) for m in found.pairs]
    return editions(tmp_path, found, gallery, salt=b"salt")


def editions(folder: Path, found: AuditResult, gallery, *, salt: bytes) -> tuple[str, str]:
    within(folder, lambda w: report.write_reports(found, gallery, w, salt=salt))
    return (folder / "report.html").read_text(), (folder / "report_share.html").read_text()


class Page(html.parser.HTMLParser):
    """Tags that must not be there, attributes that act, and what a reader sees."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.words = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("edition", [0, 1])
def test_names_cannot_become_markup_and_nothing_is_fetched(tmp_path: Path, edition: int) -> None:
    page = Page(written(tmp_path, result(12, 8))[edition])
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value and value.startswith("data:image/png;base64,")
    policy = dict(page.attributes).get("content")
    contents = [v for n, v in page.attributes if n == "content"]
    assert any(v and v.startswith("default-src 'none'") for v in contents), policy


def test_the_internal_edition_shows_every_pair(tmp_path: Path) -> None:
    internal, _ = written(tmp_path, result(3, 2))
    assert internal.count('<article class="pair">') == 5
    words = "".join(Page(internal).words)
    assert f"synthetic0{HOSTILE}" in words and f"broken2{HOSTILE}" in words
    assert "mirrored left-right" in words and "turned 3.2° to the right" in words


@pytest.mark.parametrize(("exact", "near"), [(12, 8), (52, 3), (2, 0), (0, 3), (0, 0)])
def test_the_shared_edition_holds_no_person_and_no_small_count(
    tmp_path: Path, exact: int, near: int
) -> None:
    _, shared = written(tmp_path, result(exact, near))
    assert "<img" not in shared and "data:image" not in shared
    for word in ("synthetic0", "real0", "person0", "broken", "passwd", "alert"):
        assert word not in shared
    words = " ".join("".join(Page(shared).words).split())
    # Not one count from 1 to 4 of images or people, alone or by subtraction from a total.
    assert not re.search(r"\b[1-4] (real|synthetic|near|of|exact|image|patient)", words)
    if 0 < exact < 5 or 0 < near < 5:
        assert words.count("not shown") == 2


def test_identifiers_of_the_shared_edition_need_the_salt(tmp_path: Path) -> None:
    found = result(6, 0)
    _, shared = written(tmp_path, found)
    _, picture_free = editions(tmp_path, found, (), salt=b"another")
    aliases = re.findall(r"<td><code>([0-9a-f]{10})</code>", shared)
    assert len(aliases) == 6
    assert not set(aliases) & set(re.findall(r"<code>([0-9a-f]{10})</code>", picture_free))


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path, result(3, 3)) == written(tmp_path, result(3, 3))


def test_the_bounds_of_suppression() -> None:
    assert [Edition.SHARED.count(n) for n in (0, 1, 4, 5, 1234)] == [
        "0",
        "fewer than 5",
        "fewer than 5",
        "5",
        "1,234",
    ]


def test_an_inconclusive_answer_claims_no_copy() -> None:
    found = result(6, 9)
    unsure = dataclasses.replace(
        found, assessment=dataclasses.replace(found.assessment, verdict=Verdict.INCONCLUSIVE)
    )
    for one, said in ((found, ") are copies of"), (unsure, ") look like copies of")):
        assert said in report.answer(one, Edition.INTERNAL).sentences[0]


def test_a_picture_of_no_distribution_is_left_out(tmp_path: Path) -> None:
    """Real images of one patient alone have no null distribution; the page still stands."""
    found = dataclasses.replace(
        result(0, 0), distributions={"synthetic_to_real": np.array([0.4, 0.5])}
    )
    assert "<svg" in written(tmp_path, found)[0]
