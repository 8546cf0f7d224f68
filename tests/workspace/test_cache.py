"""Entries of single images: only what is new is made, and what is forgotten is gone."""

import json

import numpy as np
import pytest

from deepssim_jax.workspace import Made, Workspace, WorkspaceError, examine
from deepssim_jax.workspace.cache import whole_note


def making(ids, seen):
    """Entries that can be told from their id; those that end in `!` are refused."""

    def make(places):
        chosen = [ids[place] for place in places]
        seen.append(chosen)
        good = [i for i in chosen if not i.endswith("!")]
        return Made(
            {
                "value": np.array([[int(i)] * 2 for i in good], np.uint16).reshape(-1, 2),
                "root": np.array([int(i) ** 0.5 for i in good]),
            },
            {place: "is blank" for place, i in enumerate(chosen) if i.endswith("!")},
        )

    return make


def computed(workspace, ids, seen, *, settings=1, block=2):
    cache = workspace.cache("describe", settings, code=making)
    return cache.compute(ids, making(ids, seen), block=block)


def test_only_what_is_new_is_made(tmp_path):
    seen = []
    for ids in (["3", "1", "2!"], ["1", "4", "2!", "1", "3"]):
        with Workspace.open(tmp_path / "out", command="a") as workspace:
            entries = computed(workspace, ids, seen)
    assert seen == [["3", "1"], ["2!"], ["4"]]
    assert entries.ids == ("1", "4", "1", "3") and entries.refused == {2: "is blank"}
    assert entries.positions.tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(entries.field("value")[:, 0], [1, 4, 1, 3])
    np.testing.assert_array_equal(entries.take("root", np.array([1, 3])), [2, 3**0.5])
    assert entries.take("value", np.array([], int)).shape == (0, 2)
    assert entries.field("value").dtype == np.uint16


def test_other_settings_are_other_entries_and_old_ones_are_pruned(tmp_path):
    seen = []
    for settings in (1, 2, 2):
        with Workspace.open(tmp_path / "out", command="a") as workspace:
            computed(workspace, ["1"], seen, settings=settings)
            workspace.prune()
    assert seen == [["1"], ["1"]]
    assert len(list((tmp_path / "out" / "work" / "cache").iterdir())) == 1


def test_images_that_were_all_refused_have_no_arrays(tmp_path):
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        entries = computed(workspace, ["1!", "2!"], [])
        assert len(entries) == 0 and entries.refused == {0: "is blank", 1: "is blank"}
        assert len(computed(workspace, [], [])) == 0


def test_finished_blocks_are_kept_and_unfinished_shards_count_for_nothing(tmp_path):
    ids, seen = [str(i) for i in range(6)], []
    good = making(ids, seen)

    def stops(places):
        if len(seen) == 2:
            raise KeyboardInterrupt
        return good(places)

    with (
        Workspace.open(tmp_path / "out", command="a") as workspace,
        pytest.raises(KeyboardInterrupt),
    ):
        workspace.cache("describe", 1, code=making).compute(ids, stops, block=2)
    (folder,) = (tmp_path / "out" / "work" / "cache").iterdir()
    for note in folder.glob("*.json"):
        if json.loads(note.read_text())["images"] == ["2", "3"]:
            note.write_bytes(b'{"images": [')  # a damaged note
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        entries = computed(workspace, ids, seen)
    assert seen == [["0", "1"], ["2", "3"], ["2", "3"], ["4", "5"]]
    np.testing.assert_array_equal(entries.field("value")[:, 0], range(6))


def test_what_is_forgotten_is_gone_from_the_disk(tmp_path):
    ids, seen = ["11", "22", "33", "44!"], []
    out = tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ids, seen, block=3)
        computed(workspace, ids, seen, block=3, settings=2)
    with Workspace.open(out, command="a") as workspace:
        assert workspace.forget({"22", "44!", "99"}) == 4
        entries = computed(workspace, ["33", "11"], seen)
        np.testing.assert_array_equal(entries.field("value")[:, 0], [33, 11])
    names = b"".join(p.read_bytes() for p in (out / "work" / "cache").rglob("*.json"))
    assert b"22" not in names and b"44!" not in names and b"33" in names
    arrays = [np.load(p)[:, 0].tolist() for p in (out / "work" / "cache").rglob("*.value.npy")]
    assert arrays == [[11, 33]] * 2
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ids, seen)
    assert seen[-1] == ["22", "44!"]


def test_rows_that_do_not_fit_are_refused(tmp_path):
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        cache = workspace.cache("describe", 1, code=making)
        with pytest.raises(ValueError, match="'x' has 1 rows for 2 images"):
            cache.compute(["1", "2"], lambda places: Made({"x": np.zeros(1)}), block=2)
        with pytest.raises(ValueError, match="letters"):
            cache.compute(["1"], lambda places: Made({"../x": np.zeros(1)}), block=2)
        with pytest.raises(KeyError):
            cache.entries(["1"])


def test_a_hundred_thousand_images_are_few_files(tmp_path):
    ids = [f"{i:064x}" for i in range(100_000)]
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        cache = workspace.cache("describe", 1, code=making)
        made = cache.compute(ids, lambda p: Made({"x": p.astype(np.int32)}), block=4096)
        np.testing.assert_array_equal(
            made.take("x", np.array([99_999, 0, 5000])), [99_999, 0, 5000]
        )
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        again = workspace.cache("describe", 1, code=making).entries(ids[::-1])
        assert again.field("x")[0] == 99_999
    assert sum(1 for p in tmp_path.rglob("*") if p.is_file()) < 60


def test_damaged_arrays_are_made_again_and_go_at_the_end(tmp_path):
    seen, out = [], tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ["1", "2", "3"], seen)
    path = next(p for p in out.glob("work/cache/*/*.value.npy") if len(np.load(p)) == 2)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert examine(out, work=out / "work").damaged == 1
    with Workspace.open(out, command="a") as workspace:
        entries = computed(workspace, ["1", "2", "3"], seen)
        workspace.prune()
    assert seen == [["1", "2"], ["3"], ["1", "2"]]
    np.testing.assert_array_equal(entries.field("value")[:, 0], [1, 2, 3])
    assert np.load(path)[:, 0].tolist() == [1, 2] and examine(out, work=out / "work").damaged == 0


def test_no_changed_byte_of_a_note_is_missed(tmp_path):
    seen, out = [], tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ["1", "2", "3!"], seen, block=3)
    [path] = out.glob("work/cache/*/*.json")
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (1, 4):
            changed = bytearray(content)
            changed[place] ^= bit
            path.write_bytes(changed)
            assert whole_note(path) is None, (place, bit)
    assert examine(out, work=out / "work").damaged == 1
    with Workspace.open(out, command="a") as workspace:
        entries = computed(workspace, ["1", "2", "3!"], seen, block=3)
        workspace.prune()
    assert seen == [["1", "2", "3!"]] * 2 and entries.refused == {2: "is blank"}
    assert path.read_bytes() == content and examine(out, work=out / "work").damaged == 0


def test_notes_of_versions_that_wrote_no_hash_count_while_their_name_proves_them(tmp_path):
    seen, out = [], tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ["1", "2!"], seen)
    [path] = out.glob("work/cache/*/*.json")
    note = json.loads(path.read_bytes())
    del note["content"]
    path.write_text(json.dumps(note))
    assert examine(out, work=out / "work").damaged == 0
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ["1", "2!"], seen)
    assert seen == [["1", "2!"]]
    path.write_text(json.dumps(note | {"images": ["9"]}))
    assert examine(out, work=out / "work").damaged > 0


def test_files_of_others_stay_in_a_cache_whatever_they_are_called(tmp_path):
    out, ids = tmp_path / "out", ["1", "2", "3"]
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ids, [])
    (folder,) = (out / "work" / "cache").iterdir()
    shard = min(folder.glob("*.json")).stem
    mine = [folder / n for n in ("000001.json", f"{'0' * 16}.json", f"{shard}.mine.npy", "a.npy")]
    for path in mine:
        path.write_bytes(b"mine")
    with Workspace.open(out, command="a") as workspace:
        workspace.forget({"1"})
        computed(workspace, ids, [])
        workspace.prune()
    with Workspace.open(out, command="a") as workspace:
        workspace.prune()  # no cache was used
    assert all(path.read_bytes() == b"mine" for path in mine)
    assert sorted(folder.iterdir()) == sorted(mine)
    assert examine(out, work=out / "work").damaged == 0


def test_a_file_of_someone_else_where_a_shard_would_be_is_said_and_stays(tmp_path):
    out = tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ["1"], [])
    (note,) = out.glob("work/cache/*/*.json")
    with Workspace.open(out, command="a") as workspace:
        workspace.prune()
    (out / "work" / "kept-0.jsonl").write_bytes(b"")
    note.parent.mkdir()
    note.write_bytes(b"mine")
    with (
        Workspace.open(out, command="a") as workspace,
        pytest.raises(WorkspaceError, match="in the kept work was not made by this program"),
    ):
        computed(workspace, ["1"], [])
    assert [p.read_bytes() for p in note.parent.iterdir()] == [b"mine"]


def test_work_of_versions_that_kept_no_list_is_taken_over(tmp_path):
    out, seen = tmp_path / "out", []
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ["1", "2"], seen)
        workspace.step("s", 1, lambda: [1])
    (step,) = (out / "work" / "steps").iterdir()
    damaged = step.with_name(step.name.replace("s-", "t-"))
    damaged.write_bytes(b"other bytes than its name says")
    (out / "work" / "kept-0.jsonl").unlink()
    assert examine(out, work=out / "work").damaged == 1
    with Workspace.open(out, command="a") as workspace:
        computed(workspace, ["2", "1"], seen)
        assert workspace.forget({"1"}) == 1
        workspace.prune()
    assert seen == [["1", "2"]] and list((out / "work" / "steps").iterdir()) == [damaged]


def failing(reason: str, lacking: list[str]):
    """Refuses those of `lacking` for this run alone."""

    def of(ids, seen):
        def make(places):
            chosen = [ids[place] for place in places]
            seen.append(chosen)
            bad = {place: reason for place, i in enumerate(chosen) if i in lacking}
            good = [int(i) for i in chosen if i not in lacking]
            return Made({"value": np.array(good, np.uint16)}, bad, frozenset(bad))

        return make

    return of


def test_a_refusal_by_the_machine_is_not_kept(tmp_path):
    """Whether alone in its shard or not; and it is forgotten with the rest."""
    seen = []
    for lacking in (["2", "3"], ["3"], []):
        with Workspace.open(tmp_path / "out", command="a") as workspace:
            cache = workspace.cache("describe", 1, code=making)
            ids = ["1", "2", "3"]
            entries = cache.compute(ids, failing("no memory", lacking)(ids, seen), block=2)
            assert entries.refused == {ids.index(i): "no memory" for i in lacking}
            assert entries.field("value").tolist() == [int(i) for i in ids if i not in lacking]
            assert cache.compute(ids, failing("", ids)(ids, []), block=2).refused == entries.refused
    assert seen == [["1", "2"], ["3"], ["2", "3"], ["3"]]
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        cache = workspace.cache("describe", 1, code=making)
        assert cache.forget(["1"]) == 1 and "1" not in cache
        assert cache.entries(["2", "3"]).field("value").tolist() == [2, 3]
        assert cache.forget(["2", "3"]) == 2
    notes = list((tmp_path / "out" / "work" / "cache").rglob("*.json"))
    assert not any('"2"' in note.read_text() or '"3"' in note.read_text() for note in notes)
