"""`avel extract` in this process: what it does, says and returns, over real small videos and real stores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog import dataset
from catalog.store.reader import create_store, open_store
from catalog.video import Video
from jobs.cli import main as cli
from pipeline.extract import extract
from pipeline.recipes import find_recipe
from pipeline.run_summary import RunSummary
from tests import small_videos as small

RECIPE = "descriptors-1s"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = small.make_folder(tmp_path_factory.mktemp("extract") / "videos", 10)
    return folder


@pytest.fixture
def media(videos: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(videos, tmp_path / "videos"))


def run(media: Path, store: Path, *more: str) -> int:
    words = ["extract", str(media), "--store", str(store), "--executor", "local", *more]
    return cli.main(words if "--recipe" in more else [*words, "--recipe", RECIPE])


def test_extract_json_is_one_object_with_the_counts(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(media, tmp_path / "s", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["statuses"] == {"extracted": 10}
    assert told["segments"] == open_store(tmp_path / "s").recipe(RECIPE).rows


def test_dry_run_writes_nothing_and_counts(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(media, tmp_path / "s", "--dry-run") == 0
    assert "10" in capsys.readouterr().out
    assert not (tmp_path / "s").exists()


def test_videos_added_later_leave_existing_rows_alone(media: Path, tmp_path: Path) -> None:
    late = [media / "v003.mp4", media / "v009.mp4"]
    away = tmp_path / "away"
    away.mkdir()
    for path in late:
        path.rename(away / path.name)
    assert run(media, tmp_path / "s") == 0
    before = open_store(tmp_path / "s").read(RECIPE, "visual")
    for path in late:
        (away / path.name).rename(path)
    assert run(media, tmp_path / "s") == 0
    after = open_store(tmp_path / "s").read(RECIPE, "visual")
    assert after.video_ids == (*before.video_ids, "v003.mp4", "v009.mp4")
    np.testing.assert_array_equal(after.values[: len(before.values)], before.values)


def test_a_recipe_added_later_equals_one_extracted_at_first(media: Path, tmp_path: Path) -> None:
    changed = ["--recipe", RECIPE, "--set", "grid.hop_s=1/2", "--as", "half"]
    assert run(media, tmp_path / "s") == 0
    old = small.arrays(tmp_path / "s")
    assert run(media, tmp_path / "s", *changed) == 0
    assert run(media, tmp_path / "alone", *changed) == 0
    new, alone = small.arrays(tmp_path / "s"), small.arrays(tmp_path / "alone")
    for path, values in old.items():
        np.testing.assert_array_equal(new[path], values, err_msg=path)
    halves = [path for path in alone if path.startswith("features/half/")]
    assert len(halves) >= 10
    for path in halves:
        np.testing.assert_array_equal(new[path], alone[path], err_msg=path)


def test_a_failure_is_a_row_and_retry_tries_it_again(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (media / "v004.mp4").read_bytes()
    (media / "v004.mp4").write_bytes(b"")
    assert run(media, tmp_path / "s", "--max-quarantined", "1") == 0
    assert run(media, tmp_path / "s") == 3, "more quarantined than allowed"
    capsys.readouterr()
    assert cli.main(["store", "inspect", str(tmp_path / "s"), "--failures", "--json"]) == 0
    (failure,) = json.loads(capsys.readouterr().out)["failures"]
    assert (failure["video"], failure["status"], failure["reason"]) == ("v004.mp4", "quarantined", "empty_file")
    (media / "v004.mp4").write_bytes(good)
    assert run(media, tmp_path / "s") == 3, "a failure is final until --retry"
    assert run(media, tmp_path / "s", "--retry", "not_media") == 3, "it failed for another reason"
    assert run(media, tmp_path / "s", "--retry", "empty_file") == 0
    store = open_store(tmp_path / "s")
    assert set(store.videos().status) == {"extracted"}
    capsys.readouterr()
    assert cli.main(["store", "verify", str(tmp_path / "s"), "--media", str(media)]) == 0
    whole = tmp_path / "whole"
    assert run(media, whole) == 0
    for modality in ("visual", "audio"):
        retried = store.read(RECIPE, modality, ["v004.mp4"])
        np.testing.assert_array_equal(retried.values, open_store(whole).read(RECIPE, modality, ["v004.mp4"]).values)


@pytest.mark.parametrize(
    ("num_videos", "share", "allowed"),
    [
        (19, "5%", 0),
        (20, "5%", 1),
        (39, "5%", 1),
        (39, "0.05", 1),
        (30, "2.5%", 0),
        (100, "29%", 29),  # a share that floats round down
        (3, "100%", 3),
        (3, "0%", 0),
        (3, "7", 7),
    ],
)
def test_max_quarantined_is_the_whole_number_at_or_below_the_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], num_videos: int, share: str, allowed: int
) -> None:
    for number in range(num_videos):
        (tmp_path / f"v{number:03}.mp4").touch()
    assert run(tmp_path, tmp_path / "s", "--dry-run", "--json", "--max-quarantined", share) == 0
    assert json.loads(capsys.readouterr().out)["max_quarantined"] == allowed


@pytest.mark.parametrize("share", ["-1", "101%", "1.5", "-5%", "5 %%", "nan", "1/0%", "%", ""])
def test_max_quarantined_that_is_no_share_is_refused(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], share: str
) -> None:
    assert run(media, tmp_path / "s", f"--max-quarantined={share}") == 2
    assert f"got {share!r}" in capsys.readouterr().err


def test_exit_status_is_3_from_one_video_above_the_share_on(media: Path, tmp_path: Path) -> None:
    for name in ("v001.mp4", "v004.mp4"):
        (media / name).write_bytes(b"")
    statuses = {share: run(media, tmp_path / "s", "--max-quarantined", share) for share in ("15%", "19.9%", "20%", "2")}
    assert statuses == {"15%": 3, "19.9%": 3, "20%": 0, "2": 0}


class OvertakenVideos(tuple[Video, ...]):
    """The wanted videos; once they have been looked through for the first time, somebody else extracts them all."""

    overtake: Callable[[tuple[Video, ...]], None] | None

    def __iter__(self) -> Iterator[Video]:
        yield from super().__iter__()
        if (overtake := self.__dict__.pop("overtake", None)) is not None:
            overtake(tuple(self))


def test_what_another_writer_did_since_the_plan_was_made_is_not_done_again(media: Path, tmp_path: Path) -> None:
    store, recipes = tmp_path / "s", [find_recipe(RECIPE)]
    create_store(store)
    videos = OvertakenVideos(dataset.load("folder", str(media)).videos)
    others: list[RunSummary] = []
    videos.overtake = lambda rest: others.append(extract(rest, recipes, store))
    summary = extract(videos, recipes, store)
    assert [(other.commits, other.skipped) for other in others] == [(1, 0)]
    assert (summary.commits, summary.skipped, dict(summary.statuses)) == (0, 10, {})
    assert summary.store_statuses["extracted"] == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "nothing"], "nothing"),
        (["--retry", "tired"], "tired"),
        (["--set", "grid.hop=1"], "grid.hop"),
        (["--hop", "-1"], "hop"),
        (["--hop", "1e-9"], "at most 360,000 are made"),
        (["--set", "revision=9"], "makes revision 1 here, got 9"),
        (["--max-quarantined", "many"], "many"),
    ],
)
def test_bad_arguments_exit_2_and_say_which(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(media, tmp_path / "s", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("num_there", "said"), [(0, "none of the 20 videos"), (1, "only 1 of the 20 videos")])
def test_media_of_which_hardly_any_exists_are_not_recorded_as_missing(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], num_there: int, said: str
) -> None:
    (tmp_path / "media").mkdir()
    for number in range(num_there):
        shutil.copy(videos / "v000.mp4", tmp_path / "media" / f"{number}.mp4")
    listed = tmp_path / "videos.csv"
    listed.write_text("id,uri\n" + "".join(f"{n},{tmp_path}/media/{n}.mp4\n" for n in range(20)), encoding="utf-8")
    assert run(listed, tmp_path / "s", "--dry-run") == run(listed, tmp_path / "s") == 2
    told = capsys.readouterr().err
    assert said in told
    assert f"{tmp_path}/media/{num_there}.mp4" in told
    assert "--allow-missing" in told
    assert not (tmp_path / "s").exists()
    assert run(listed, tmp_path / "s", "--allow-missing", "--max-quarantined", "20") == 0
    assert open_store(tmp_path / "s").videos().reason.count("missing_file") == 20 - num_there


def test_a_tenth_of_the_media_is_enough_to_go_on(videos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "videos.csv"
    shutil.copy(videos / "v000.mp4", tmp_path / "0.mp4")
    listed.write_text("id,uri\n" + "".join(f"{n},{tmp_path}/{n}.mp4\n" for n in range(10)), encoding="utf-8")
    assert run(listed, tmp_path / "s", "--max-quarantined", "9") == 0
    # All that exists is in the store: what is left is missing, and nothing is to do.
    assert run(listed, tmp_path / "s", "--max-quarantined", "9") == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--hop", "1/2"], "descriptors-1s with grid.hop_s=1/2 is not the preset of that name"),
        (["--set", "video.frames_per_segment=2"], "video.frames_per_segment=2 is not the preset"),
        (["--as", "vgg19-vggish-1s"], "vgg19-vggish-1s with "),
        (["--hop", "1/2", "--as", RECIPE], "such as --as descriptors-1s-mine"),
    ],
)
def test_a_presets_name_is_the_presets_alone(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert run(media, tmp_path / "s", *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_recipe_that_an_older_store_holds_under_a_presets_name_goes_on(media: Path, tmp_path: Path) -> None:
    changed = find_recipe(RECIPE).changed({"grid.hop_s": "1/2"})
    extract(dataset.load("folder", str(media)).videos[:1], [changed], tmp_path / "s")
    assert run(media, tmp_path / "s", "--hop", "1/2") == 0
    assert set(open_store(tmp_path / "s").outcomes(RECIPE).status) == {"extracted"}
    assert run(media, tmp_path / "s") == 2  # the preset itself is another one


def test_what_was_not_taken_for_a_video_is_told_at_the_end(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.txt", "b.nfo", "c.srt", "d.jpg"):
        (media / name).write_text("x")
    said = "4 file(s) without a media suffix left out: a.txt, b.nfo, c.srt, ..."
    assert run(media, tmp_path / "s", "--limit", "1") == 0
    assert f"avel extract: {said}" in capsys.readouterr().err
    assert run(media, tmp_path / "s", "--limit", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == [f"{said}."]
