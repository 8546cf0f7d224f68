"""From a finished audit to the review page and back: what is shown, what is private, what ratings give."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import deepssim_jax as ds
from deepssim_jax.audit import doubles, tables
from deepssim_jax.audit.inputs import remove_stale_reviews
from deepssim_jax.audit.result import Match
from deepssim_jax.cli.main import main
from deepssim_jax.data.manifest import InputError
from deepssim_jax.jobs.review_reading import read_source
from deepssim_jax.workspace import Workspace, sha256
from tests.jobs import made
from tests.jobs.reviewed import COPIES, SETTINGS, data_of, matches, picture, write_images


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of an audit of these images, with what review reads of it."""
    root = tmp_path_factory.mktemp("review")
    write_images(root)
    settings = {
        "size": 64, "slice": "axial:0.5", "subject_regex": SETTINGS.subject_regex, "links": "inside",
        "arrays": "images", "level": 0.95,
    }  # fmt: skip
    sources = {role: str(root / role) for role in ("real", "synthetic")}
    summary = {
        "thresholds": {"near": 0.86, "local": 1.2, "partial": [0.5, 0.6, 0.7]},
        "copy_rate": tables.proportion(ds.clopper_pearson(4, 10)),
    }
    with Workspace.open(root / "out", command="audit") as out:
        out.write("inputs.json", json.dumps({"sources": sources, "settings": settings}).encode())
        out.write("nearest.csv", tables.matches(matches(), ranked=False).csv())
        out.write("real_duplicates.csv", tables.table([doubles.COLUMNS]))
        out.write("summary.json", json.dumps(summary).encode())
    return root


@pytest.fixture(scope="module")
def opened(finished: Path) -> ds.ReviewResult:
    return ds.review(finished / "out")


@pytest.fixture(scope="module")
def blind(finished: Path) -> ds.ReviewResult:
    settings = ds.ReviewSettings(reading=ds.Reading.BLIND, controls=4, seed=3)
    return ds.review(finished / "out", settings=settings)


def test_copies_are_shown_in_place_with_their_matched_points(opened: ds.ReviewResult) -> None:
    pairs = {dict(pair["facts"])["synthetic"]: pair for pair in data_of(opened.page)["pairs"]}
    assert len(pairs) == 10 and opened.side == 256
    for name in COPIES:
        pair = pairs[f"c_{name}.png"]
        (plane,) = pair["planes"]
        fixed, moving = picture(plane["fixed"]), picture(plane["moving"])
        inner = (slice(32, -32),) * 2
        assert np.corrcoef(fixed[inner].ravel(), moving[inner].ravel())[0, 1] > 0.97, name
        points = np.array(pair["points"])
        assert len(points) >= 8
        assert np.abs(points[:, :2] - points[:, 2:]).max() < 8 / 256
        assert pair["margin"] > 0
    unlike = [pair for name, pair in pairs.items() if name.startswith("s")]
    assert all(pair["margin"] < 0 and len(pair["points"]) < 8 for pair in unlike)


def test_the_least_certain_come_first(opened: ds.ReviewResult) -> None:
    margins = [abs(pair["margin"]) for pair in data_of(opened.page)["pairs"]]
    assert margins == sorted(margins)


def test_a_blind_page_says_nothing_and_its_key_everything(
    finished: Path, blind: ds.ReviewResult
) -> None:
    pairs, text = data_of(blind.page)["pairs"], blind.page.read_text()
    assert all(set(pair) == {"id", "planes"} for pair in pairs)
    for word in ("c_mirrored", "p03_0", "known_copy", "duplicate", "unrelated"):
        assert word not in text.split('id="data">')[1]
    key = json.loads(blind.key.read_text())
    kinds = [row["kind"] for row in key["pairs"]]
    assert [row["pair"] for row in key["pairs"]] == [pair["id"] for pair in pairs]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "sample": 10, "known_copy": 4, "known_unrelated": 4,
    }  # fmt: skip
    assert kinds != sorted(kinds)  # mixed
    for row in key["pairs"]:
        if row["kind"] == "known_unrelated":
            assert row["moving"][:3] != row["fixed"][:3]  # two patients
    known = [(row["fixed"], row["moving"]) for row in key["pairs"] if row["kind"] != "sample"]
    assert len(set(known)) == 8
    for path in (blind.page, blind.key):
        assert path.stat().st_mode & 0o077 == 0
    # All pictures are of one size, whatever a pair is.
    assert len({(p["planes"][0]["side"], p["planes"][0]["slices"]) for p in pairs}) == 1


def test_an_open_page_does_not_tell_what_a_blind_one_holds(
    opened: ds.ReviewResult, blind: ds.ReviewResult
) -> None:
    names = [{pair["id"] for pair in data_of(made_.page)["pairs"]} for made_ in (opened, blind)]
    assert all(names) and not names[0] & names[1]


def test_known_copies_look_like_their_originals(blind: ds.ReviewResult) -> None:
    rows = {row["pair"]: row for row in json.loads(blind.key.read_text())["pairs"]}
    alike: dict[str, list[float]] = {"known_copy": [], "known_unrelated": []}
    for pair in data_of(blind.page)["pairs"]:
        kind = rows[pair["id"]]["kind"]
        if kind in alike:
            images = [picture(pair["planes"][0][name]).ravel() for name in ("fixed", "moving")]
            alike[kind].append(np.corrcoef(*images)[0, 1])
    assert np.median(alike["known_copy"]) > 0.6 > np.median(alike["known_unrelated"])


def test_the_same_review_is_the_same_page(finished: Path, opened: ds.ReviewResult) -> None:
    before = opened.page.read_bytes()
    assert ds.review(finished / "out").page.read_bytes() == before


def test_ratings_give_the_rate_in_files(
    finished: Path, blind: ds.ReviewResult, tmp_path: Path, capsys
) -> None:
    key = json.loads(blind.key.read_text())
    for reader in ("anna", "ben"):
        lines = ["page,reader,pair,rating"]
        for number, row in enumerate(key["pairs"]):
            rating = (
                "copy"
                if row["stratum"].endswith("duplicate") or row["kind"] == "known_copy"
                else "no"
            )
            if reader == "ben" and number == 0:
                rating = "near" if rating == "no" else "no"
            lines.append(f"{key['page']},{reader},{row['pair']},{rating}")
        (tmp_path / f"ratings_{reader}.csv").write_text("\n".join(lines) + "\n")
    given = [f"--ratings={tmp_path / f'ratings_{reader}.csv'}" for reader in ("anna", "ben")]
    assert main(["review", str(finished / "out"), *given]) == 0
    assert "by the readers it is" in capsys.readouterr().out
    summary = json.loads((finished / "out" / "review_summary.json").read_text())
    automatic = json.loads((finished / "out" / "summary.json").read_text())["copy_rate"]
    assert summary["automatic_rate"] == automatic
    rate = summary["adjudicated_rate"]
    assert rate["low"] <= 0.4 <= rate["high"] and rate["rated"] == 10
    (anna, _) = summary["readers"]
    assert anna["sensitivity"]["value"] == anna["specificity"]["value"] == 1.0
    first = key["pairs"][0]
    disagreements = (finished / "out" / "review_disagreements.csv").read_text().splitlines()
    assert len(disagreements) == 1 + (first["kind"] == "sample")
    report = (finished / "out" / "review_report.html").read_text()
    assert "anna" in report and "<script" not in report and "p03" not in report


def test_ratings_of_another_page_are_refused(
    finished: Path, opened: ds.ReviewResult, tmp_path: Path
) -> None:
    path = tmp_path / "ratings_a.csv"
    path.write_text("page,reader,pair,rating\nother,a,x,no\n")
    with pytest.raises(InputError, match="another page"):
        ds.rate_agreement(finished / "out", [path])
    page = json.loads(opened.key.read_text())["page"]
    path.write_text(f"page,reader,pair,rating\n{page},a,x,no\n")
    with pytest.raises(InputError, match="file 1 has pairs that are not on the page, 1 of"):
        ds.rate_agreement(finished / "out", [path])


@pytest.fixture
def rated(finished: Path, opened: ds.ReviewResult, tmp_path: Path) -> Path:
    """A copy of the audit and its images, and `a.csv`, all of whose pairs are rated."""
    for name in ("out", "real", "synthetic"):
        shutil.copytree(finished / name, tmp_path / name)
    out = tmp_path / "out"
    key = json.loads((out / "review_key.json").read_text())
    rows = [f"{key['page']},a,{row['pair']},no" for row in key["pairs"]]
    (tmp_path / "a.csv").write_text("\n".join(["page,reader,pair,rating", *rows]))
    inputs = json.loads((out / "inputs.json").read_text())
    inputs["sources"] = {role: str(tmp_path / role) for role in ("real", "synthetic")}
    written_again(out, inputs)
    return out


def run_again(out: Path, found: list[Match]) -> None:
    """As if the audit had found these."""
    with Workspace.open(out, command="audit") as workspace:
        workspace.write("nearest.csv", tables.matches(found, ranked=False).csv())
        remove_stale_reviews(workspace, "nearest.csv")


def test_ratings_are_of_the_pairs_that_still_stand(rated: Path, tmp_path: Path) -> None:
    """An audit that was run again may have other pairs; what readers said of the others still holds."""
    made_ = ds.rate_agreement(rated, [tmp_path / "a.csv"])
    assert made_.rate is not None and made_.readers[0].rated == 10
    # The same pairs in other decimals are a sample as before, and what was summed up is of the earlier run.
    run_again(rated, [dataclasses.replace(x, embedding_score=0.8) for x in matches()])
    assert not [path for path in made_.written if path.exists()]
    assert (rated / "review.html").is_file()
    assert ds.rate_agreement(rated, [tmp_path / "a.csv"]).rate == made_.rate
    # One more image: the page is no sample of the pairs, and its ratings hold.
    made.write(tmp_path / "synthetic" / "s56.png", made.texture(56))
    more = dataclasses.replace(matches()[-1], synthetic_id="s56.png")
    run_again(rated, [*matches(), more])
    found = ds.rate_agreement(rated, [tmp_path / "a.csv"])
    assert found.rate is None and found.readers[0].rated == 10
    assert "0 pairs of the page are gone" in found.reason and "deepssim review" in found.reason
    # An image of other content under the same name, and one that is gone.
    made.write(tmp_path / "synthetic" / "s50.png", made.texture(99))
    (tmp_path / "synthetic" / "s51.png").unlink()
    run_again(rated, [x for x in matches() if x.synthetic_id != "s51.png"])
    found = ds.rate_agreement(rated, [tmp_path / "a.csv"])
    assert found.rate is None and found.readers[0].rated == 8
    assert "2 pairs of the page are gone" in found.reason


def test_a_page_of_an_earlier_version_says_what_to_do(rated: Path, tmp_path: Path) -> None:
    key = json.loads((rated / "review_key.json").read_text())
    earlier = json.dumps({x: key[x] for x in key if x not in ("design", "content")})
    with Workspace.open(rated, command="audit") as out:
        out.write("review_key.json", earlier.encode())
    run_again(rated, matches()[:-1])
    with pytest.raises(
        InputError, match="earlier version made its page.*run deepssim review again"
    ):
        ds.rate_agreement(rated, [tmp_path / "a.csv"])


def written_again(out: Path, inputs: dict, *, noted: bool = True) -> None:
    """Other inputs in a copied audit, as if the audit had written them if `noted`."""
    path = out / "inputs.json"
    path.unlink()
    path.write_text(json.dumps(inputs))
    if noted:
        with (out / "work" / "outputs.jsonl").open("a") as file:
            file.write(json.dumps(["inputs.json", sha256(path)]) + "\n")


def test_images_that_are_gone_are_counted(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "synthetic", tmp_path / "synthetic")
    shutil.copytree(finished / "out", tmp_path / "out")
    inputs = json.loads((tmp_path / "out" / "inputs.json").read_text())
    inputs["sources"]["synthetic"] = str(tmp_path / "synthetic")
    (tmp_path / "synthetic" / "s50.png").unlink()
    written_again(tmp_path / "out", inputs, noted=False)
    with pytest.raises(ValueError, match="changed after being written"):
        ds.review(tmp_path / "out")
    written_again(tmp_path / "out", inputs)
    assert ds.review(tmp_path / "out").unread == 1


def test_whoever_was_forgotten_is_no_known_pair(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    inputs = json.loads((tmp_path / "out" / "inputs.json").read_text())
    written_again(tmp_path / "out", inputs | {"left_out": {"real": 1, "synthetic": 0}})
    blind = ds.ReviewSettings(reading=ds.Reading.BLIND, controls=4)
    with pytest.raises(ds.InputError, match="of which 1 were to be forgotten"):
        ds.review(tmp_path / "out", settings=blind)
    assert read_source(tmp_path / "out").left_out == 1
