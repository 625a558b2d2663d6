"""What two snapshots differ in."""

from __future__ import annotations

from pathlib import Path

from catalog.store.diff import RecipeDiff, diff
from catalog.store.reader import open_store
from catalog.store.writer import open_writer
from tests import sample_store as sample

SHAPES = {"visual_shape": (sample.VISUAL,), "audio_shape": (sample.AUDIO,)}


def test_diff_of_added_and_retried_videos_and_a_recipe_added_later(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(0), sample.quarantined(1), sample.result(2)])
    store.tag("v1")
    with open_writer(store) as writer:
        writer.append([sample.result(1)], ["tiny"], replace=True)
        writer.append([sample.result(3)], ["tiny"])
        writer.ensure_recipe(sample.recipe("later"), **SHAPES, card={})
        writer.append([sample.result(2, names=("later",))], ["later"])
        writer.commit("more")
    before, after = open_store(tmp_path / "s", at="v1"), open_store(tmp_path / "s")

    found = diff(before, after)

    assert (found.before, found.after) == (before.snapshot_id, after.snapshot_id)
    assert (found.added, found.removed, found.changed) == (("v3",), (), ("v1",))
    assert found.recipes == {
        "tiny": RecipeDiff(rows_before=6, rows_after=6 + 3 + 2, done=("v3",), retried=("v1",)),
        "later": RecipeDiff(rows_before=0, rows_after=4, done=("v2",), retried=()),
    }


def test_diff_backwards_has_the_removed_videos(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(0)])
    first = store.tag("v1")
    with open_writer(store) as writer:
        writer.append([sample.result(1)], ["tiny"])
        writer.commit("more")
    found = diff(store, open_store(tmp_path / "s", at=first))
    assert (found.added, found.removed, found.changed) == ((), ("v1",), ())
    assert found.recipes == {"tiny": RecipeDiff(rows_before=5, rows_after=2, done=(), retried=())}


def test_diff_of_a_snapshot_with_itself_is_empty(tmp_path: Path) -> None:
    store = sample.make(tmp_path / "s", [sample.result(0), sample.quarantined(1)])
    found = diff(store, open_store(tmp_path / "s"))
    assert (found.added, found.removed, found.changed, found.recipes) == ((), (), (), {})
