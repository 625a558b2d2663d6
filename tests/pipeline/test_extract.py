"""From videos to a committed store, as a library call: what is refused, what is skipped, and what is counted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from catalog.datasets import folder
from catalog.errors import RecipeMismatch, StoreBusy
from catalog.recipe import Recipe
from catalog.store.reader import create_store, open_store
from catalog.store.writer import open_writer
from catalog.video import Video
from pipeline.extract import ExtractOptions, extract, preview
from pipeline.recipes import find_recipe
from pipeline.run_summary import RunSummary
from tests import small_videos as small

RECIPE = find_recipe("descriptors-1s")
HALF = replace(RECIPE.changed({"grid.hop_s": "1/2"}), name="half")
ONE_LANE = ExtractOptions(workers=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Video]:
    """Two units: eight videos and one; the second has no audio, the third is empty."""
    media = small.make_folder(tmp_path_factory.mktemp("extract") / "media", 9)
    small.make_video(media / "v001.mp4", seed=1, sound=False)
    (media / "v002.mp4").write_bytes(b"")
    return folder.load(media).videos


@pytest.fixture(scope="module")
def store(videos: Sequence[Video], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, by one recipe."""
    store = tmp_path_factory.mktemp("extract") / "store"
    extract(videos, [RECIPE], store, ONE_LANE)
    return store


def test_extract_over_a_finished_store_needs_neither_lock_nor_worker(videos: Sequence[Video], store: Path) -> None:
    with open_writer(open_store(store)):
        for planned in (None, preview(videos, [RECIPE], store)):
            summary = extract(videos, [RECIPE], store, planned=planned)
            assert (summary.executor, summary.workers, summary.skipped, summary.commits) == ("none", 0, 9, 0)
            assert summary.store_statuses == {"extracted": 7, "partial": 1, "quarantined": 1}
            assert summary.store_reasons == {"no_audio": 1, "empty_file": 1}
            assert summary.snapshot == open_store(store).snapshot_id
        with pytest.raises(StoreBusy):
            extract(videos, [RECIPE], store, replace(ONE_LANE, retry_reasons=("empty_file",)))


def test_preview_tells_what_each_wanted_recipe_lacks_and_writes_nothing(
    videos: Sequence[Video], store: Path, tmp_path: Path
) -> None:
    new = preview(videos, [RECIPE], tmp_path / "none")
    assert (new.store, new.plan.num_videos, dict(new.summary.store_statuses)) == (None, 9, {"pending": 9})
    assert not (tmp_path / "none").exists()
    both = preview(videos, [RECIPE, HALF], store)
    assert [unit.recipes for unit in both.plan.units] == [("half",), ("half",)]
    assert dict(both.summary.store_statuses) == {"pending": 9}, "a video counts by the worst of its recipes"
    again = preview(videos, [RECIPE], store, retry_reasons=["no_audio"])
    assert [video.id for unit in again.plan.units for video in unit.videos] == ["v001.mp4"]


def test_extract_stopped_after_the_first_unit_has_committed_it(videos: Sequence[Video], tmp_path: Path) -> None:
    stop = threading.Event()

    def stop_now(summary: RunSummary) -> None:
        assert sum(summary.statuses.values()) == 8
        stop.set()

    summary = extract(videos, [RECIPE], tmp_path / "s", ONE_LANE, on_progress=stop_now, stop=stop)
    assert (summary.stopped, summary.commits, summary.store_statuses["pending"]) == (True, 1, 1)
    assert len(open_store(tmp_path / "s")) == 8
    # Stopped before it begins: no worker starts, nothing is committed.
    summary = extract(videos, [RECIPE], tmp_path / "s", ONE_LANE, stop=stop)
    assert (summary.stopped, summary.commits, summary.startup_s) == (True, 0, 0.0)
    summary = extract(videos, [RECIPE], tmp_path / "s", ONE_LANE)
    assert (summary.stopped, summary.commits, summary.skipped, summary.store_statuses["pending"]) == (False, 1, 8, 0)


def test_extract_refuses_another_recipe_of_a_stored_name(videos: Sequence[Video], store: Path) -> None:
    other = replace(HALF, name=RECIPE.name)
    with pytest.raises(RecipeMismatch, match=r"grid\.hop_s: stored 1, wanted 1/2.*--as NAME"):
        extract(videos, [other], store)


@pytest.mark.parametrize(
    ("num_videos", "recipes", "message"),
    [
        (0, [RECIPE], "needs videos and recipes, got 0 and 1"),
        (1, [], "needs videos and recipes, got 1 and 0"),
        (1, [RECIPE, RECIPE], "names must be distinct, got descriptors-1s, descriptors-1s"),
        (1, [replace(RECIPE, encoder="none_such")], "none_such"),
    ],
)
def test_extract_refuses_bad_arguments_before_it_makes_a_store(
    videos: Sequence[Video], tmp_path: Path, num_videos: int, recipes: list[Recipe], message: str
) -> None:
    for call in (preview, extract):
        with pytest.raises(ValueError, match=message):
            call(videos[:num_videos], recipes, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_extract_options_refuse_no_workers_and_unknown_reasons() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        ExtractOptions(workers=0)
    with pytest.raises(ValueError, match="no reason is called 'tired'"):
        ExtractOptions(retry_reasons=["tired"])


def test_extract_into_a_store_made_beforehand_equals_one_that_it_makes(
    videos: Sequence[Video], store: Path, tmp_path: Path
) -> None:
    create_store(tmp_path / "s")
    extract(videos, [RECIPE], tmp_path / "s", replace(ONE_LANE, workers=2))
    assert small.differences(small.arrays(tmp_path / "s"), small.arrays(store)) == []
