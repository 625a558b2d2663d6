"""A store against published files: what differs must be told, each thing by its name."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.exchange.compare import Agreement, Compared, Comparison, compare
from catalog.exchange.formats import unav_npy
from catalog.exchange.importing import Stated, import_features
from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Modal
from catalog.store.reader import FeatureStore, create_store
from catalog.store.rows import RecipeRows, VideoResult
from catalog.store.writer import open_writer
from catalog.video import EXTRACTED, Outcome, Video

UNAV = GridRule(window_s=Fraction(24, 25), hop_s=Fraction(8, 25), tail="drop")


def rows_of(visual: np.ndarray | None, audio: np.ndarray, *, hop_s: float = 0.32, silent: int = 0) -> RecipeRows:
    count = len(audio)
    heard = np.arange(count) >= silent
    starts = np.array([float(Fraction(str(hop_s)) * i) for i in range(count)])
    ends = np.array([float(Fraction(str(hop_s)) * i + Fraction(24, 25)) for i in range(count)])
    return RecipeRows(
        visual=Modal.of(visual, np.full(count, visual is not None)),
        audio=Modal(values=np.where(heard[:, None], audio, np.nan), valid=heard),
        start_s=starts,
        end_s=ends,
    )


def store_of(
    uri: Path, videos: dict[str, RecipeRows | None], *, width: int = 2048, grid: GridRule = UNAV, **settings: Any
) -> FeatureStore:
    recipe = Recipe(
        name="i3d-vggish-mine",
        encoder="i3d_vggish",
        grid=grid,
        video=VideoSampling(frames_per_segment=24, height_px=224, width_px=224),
        audio=AudioSampling(rate_hz=16000),
        settings=settings,
    )
    store = create_store(uri)
    with open_writer(store) as writer:
        writer.ensure_recipe(recipe, visual_shape=(width,), audio_shape=(128,), card={})
        results = [
            VideoResult(
                video=Video(id=video_id, uri=f"/media/{video_id}"),
                unit=0,
                outcome=EXTRACTED if rows is not None else Outcome(status="quarantined", reason="not_media"),
                duration_s=5.0,
                sha256="",
                bytes=1,
                media={},
                features={} if rows is None else {recipe.name: rows},
            )
            for video_id, rows in videos.items()
        ]
        writer.append(results, [recipe.name])
        writer.commit("made")
    return store


def publish(folder: Path, name: str, visual: np.ndarray | None, audio: np.ndarray | None) -> None:
    folder.mkdir(exist_ok=True)
    if visual is not None:
        np.save(folder / f"{name}_rgb.npy", visual[:, :1024])
        np.save(folder / f"{name}_flow.npy", visual[:, 1024:])
    if audio is not None:
        np.save(folder / f"{name}_vggish.npy", audio)


def drawn(count: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 2048)).astype("f4"), rng.random((count, 128)).astype("f4")


def by_stream(told: Comparison) -> dict[str, Compared]:
    assert len({item.video_id for item in told.compared}) == 1
    return {item.stream: item for item in told.compared}


def test_equal_features_are_equal_in_every_stream(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"-a": rows_of(visual, audio), "b": rows_of(visual, audio)})
    publish(tmp_path / "p", "-a", visual, audio)
    publish(tmp_path / "p", "c", visual, audio)
    told = compare(store, "i3d-vggish-mine", tmp_path / "p")
    assert (told.layout, told.verdict, told.only_here, told.only_there) == ("i3d", "equal", 1, 1)
    streams = by_stream(told)
    assert list(streams) == ["rgb", "flow", "vggish"]
    for item in streams.values():
        assert (item.rows, item.published_rows, item.one_sided_rows, item.times_off_s) == (6, 6, 0, 0)
        assert (item.max_abs, item.max_relative) == (0, 0)
        assert item.least_cosine == pytest.approx(1)


def test_differences_are_those_of_a_slow_loop(tmp_path: Path) -> None:
    (visual, audio), (other, _) = drawn(), drawn(seed=1)
    visual[2, 1024:] = 0  # has no direction
    audio[3] = 0
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio)})
    publish(tmp_path / "p", "a", other, audio)
    told = compare(store, "i3d-vggish-mine", tmp_path / "p")
    assert told.verdict == "other values"
    streams = by_stream(told)
    assert streams["vggish"].verdict == "equal"
    assert streams["vggish"].least_cosine == pytest.approx(1)
    for name, here, there in (("rgb", visual[:, :1024], other[:, :1024]), ("flow", visual[:, 1024:], other[:, 1024:])):
        cosines = []
        for a, b in zip(here.astype(float), there.astype(float), strict=True):
            length = float(np.sqrt((a @ a) * (b @ b)))
            cosines.append(float(a @ b) / length if length else 0.0)
        item = streams[name]
        assert item.verdict == "other values"
        apart = max(abs(float(d)) for d in (here.astype(float) - there).flat)
        assert item.max_abs == pytest.approx(apart)
        assert item.max_relative == pytest.approx(apart / max(abs(float(v)) for v in there.flat))
        assert item.mean_cosine == pytest.approx(sum(cosines) / 6)
        assert item.least_cosine == pytest.approx(min(cosines))


def test_tolerance_and_cosine_decide_what_is_equal(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio)})
    publish(tmp_path / "p", "a", visual * 1.01, audio * 1.01)
    name = "i3d-vggish-mine"
    assert compare(store, name, tmp_path / "p").verdict == "other values"
    assert compare(store, name, tmp_path / "p", agreement=Agreement(tolerance=0.011)).verdict == "equal"
    assert compare(store, name, tmp_path / "p", agreement=Agreement(tolerance=0.009)).verdict == "other values"
    assert compare(store, name, tmp_path / "p", agreement=Agreement(cosine=0.999)).verdict == "equal"


def test_one_row_more_is_another_shape_unless_allowed(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio)})
    publish(tmp_path / "p", "a", visual[:5], np.concatenate([audio, audio[:1]]))
    told = compare(store, "i3d-vggish-mine", tmp_path / "p")
    assert told.verdict == "other shape"
    assert [(item.rows, item.published_rows) for item in told.compared] == [(6, 5), (6, 5), (6, 7)]
    assert compare(store, "i3d-vggish-mine", tmp_path / "p", agreement=Agreement(rows_apart=1)).verdict == "equal"


def test_rows_computed_on_one_side_alone_are_another_shape(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio, silent=2)})
    publish(tmp_path / "p", "a", visual, audio)
    streams = by_stream(compare(store, "i3d-vggish-mine", tmp_path / "p"))
    assert (streams["vggish"].one_sided_rows, streams["vggish"].verdict) == (2, "other shape")
    assert streams["rgb"].verdict == "equal"
    audio[:2] = np.nan
    publish(tmp_path / "p", "a", visual, audio)
    assert compare(store, "i3d-vggish-mine", tmp_path / "p").verdict == "equal"


def test_a_video_without_rows_is_another_shape(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": None})
    publish(tmp_path / "p", "a", visual, audio)
    told = compare(store, "i3d-vggish-mine", tmp_path / "p")
    assert [(item.rows, item.published_rows, item.verdict) for item in told.compared] == [(0, 6, "other shape")] * 3


def test_rows_elsewhere_in_time_are_told(tmp_path: Path) -> None:
    visual, audio = drawn()
    grid = GridRule(window_s=Fraction(24, 25), hop_s=Fraction(9, 25), tail="drop")
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio, hop_s=0.36)}, grid=grid)
    publish(tmp_path / "p", "a", visual, audio)
    told = compare(store, "i3d-vggish-mine", tmp_path / "p")
    assert told.verdict == "other times"
    assert [item.times_off_s for item in told.compared] == pytest.approx([5 * 0.04] * 3)
    assert compare(store, "i3d-vggish-mine", tmp_path / "p", grid=grid).verdict == "equal"


def test_narrow_features_are_another_shape(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": rows_of(visual[:, :256], audio)}, width=256)
    publish(tmp_path / "p", "a", visual, audio)
    streams = by_stream(compare(store, "i3d-vggish-mine", tmp_path / "p"))
    assert [(item.width, item.published_width) for item in streams.values()] == [(128, 1024), (128, 1024), (128, 128)]
    assert streams["rgb"].max_abs is None
    assert streams["rgb"].verdict == "other shape"


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_one_stream_there_is_compared_with_its_half(tmp_path: Path, stream: str) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio)})
    publish(tmp_path / "p", "a", visual, None)
    (tmp_path / "p" / f"a_{'flow' if stream == 'rgb' else 'rgb'}.npy").unlink()
    (item,) = compare(store, "i3d-vggish-mine", tmp_path / "p").compared
    assert (item.stream, item.width, item.verdict) == (stream, 1024, "equal")


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_one_stream_here_is_compared_with_its_file(tmp_path: Path, stream: str) -> None:
    visual, audio = drawn()
    half = visual[:, :1024] if stream == "rgb" else visual[:, 1024:]
    settings: dict[str, Any] = {"rgb": stream == "rgb", "flow": stream == "flow"}
    store = store_of(tmp_path / "s", {"a": rows_of(half, audio)}, width=1024, **settings)
    publish(tmp_path / "p", "a", visual, None)
    (item,) = compare(store, "i3d-vggish-mine", tmp_path / "p").compared
    assert (item.stream, item.verdict) == (stream, "equal")


def test_of_several_layouts_in_a_folder_the_recipes_is_meant(tmp_path: Path) -> None:
    visual, audio = drawn()
    publish(tmp_path / "p", "a", visual, audio)
    np.save(tmp_path / "p" / "a_one_peace_video_finetune.npy", visual[:, :1536])
    np.save(tmp_path / "p" / "a_one_peace_audio.npy", visual[:, :1536])
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio)})
    assert compare(store, "i3d-vggish-mine", tmp_path / "p").layout == "i3d"
    one_peace = unav_npy.open_published(tmp_path / "p", recipe_name="onepeace-unav", visual_shape=(1536,))
    assert one_peace.streams == {"visual": ("one_peace_video_finetune",), "audio": ("one_peace_audio",)}
    assert one_peace.grid == GridRule(window_s=Fraction(1), hop_s=Fraction(1, 4), tail="drop")
    assert one_peace.bases() == {"a"}


def test_a_videos_files_may_leave_its_suffix_out(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"jump.mp4": rows_of(visual, audio)})
    publish(tmp_path / "p", "jump", visual, audio)
    assert compare(store, "i3d-vggish-mine", tmp_path / "p").verdict == "equal"


def test_an_export_equals_its_store(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio, silent=1), "x/b": rows_of(visual[:3], audio[:3])})
    unav_npy.export(store, "i3d-vggish-mine", tmp_path / "p")
    told = compare(store, "i3d-vggish-mine", tmp_path / "p", agreement=Agreement(tolerance=0))
    assert (told.verdict, len(told.compared), told.only_here, told.only_there) == ("equal", 6, 0, 0)


def test_folders_that_cannot_be_compared_raise(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no feature files such as ID_rgb\.npy"):
        compare(store, "i3d-vggish-mine", tmp_path / "empty")
    publish(tmp_path / "p", "other", visual, audio)
    with pytest.raises(ValueError, match=r"none of its files is of a video of .*; it has those of other"):
        compare(store, "i3d-vggish-mine", tmp_path / "p")


def damage_file(path: Path, damage: str) -> None:
    """Puts something at `path` that is no .npy of features."""
    if damage == "pickle":
        np.save(path, np.array([{"code": "runs"}]), allow_pickle=True)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "whole numbers":
        np.save(path, np.ones((6, 1024), np.int64))
    elif damage == "one axis":
        np.save(path, np.ones(6, np.float32))
    elif damage == "zip":
        np.savez(path.with_suffix(".npz"), np.ones((6, 1024), np.float32))
        path.with_suffix(".npz").rename(path)
    elif damage in HEADERS:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {HEADERS[damage]}, }}".encode().ljust(117) + b"\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24576))
    else:
        path.unlink()
        if damage == "empty":
            path.touch()
        elif damage == "pipe":
            os.mkfifo(path)
        elif damage == "folder":
            path.mkdir()
        else:
            path.symlink_to(path.parent / "nowhere" if damage == "dangling link" else path.name)


# Shapes that a header of numbers may state, and no file has.
HEADERS = {
    "negative shape": "(-6, 1024)",
    "negative shapes": "(-6, -1024)",
    "huge shape": f"({10**30}, 1024)",
    "far too long": f"({2**61}, 1024)",
    "shape of nothing": "(6, 0)",
    "shape of text": "('6', 1024)",
    "unclosed shape": "(6, 1024",
    "nested shape": "(" * 90,
}

DAMAGES = {
    "pickle": "Python objects",
    "cut": "cannot be read",
    "whole numbers": r"has int64 of shape \(6, 1024\)",
    "one axis": r"has float32 of shape \(6,\)",
    "zip": "cannot be read",
    "empty": "cannot be read",
    "pipe": "needs a regular file, has a named pipe",
    "folder": "needs a regular file, has a folder",
    "dangling link": "needs a regular file, has a link to nothing",
    "link to itself": "needs a regular file, has a link to nothing",
    **dict.fromkeys(HEADERS, r"cannot be read|of shape \(6, 0\)"),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of two videos, to read."""
    visual, audio = drawn()
    uri = tmp_path_factory.mktemp("pair") / "s"
    return store_of(uri, {"a": rows_of(visual, audio), "b": rows_of(visual, audio)})


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_cannot_be_read_is_told_beside_the_others(pair: FeatureStore, tmp_path: Path, damage: str) -> None:
    visual, audio = drawn()
    for name in "ab":
        publish(tmp_path / "p", name, visual, audio)
    path = tmp_path / "p" / "a_rgb.npy"
    damage_file(path, damage)
    told = compare(pair, "i3d-vggish-mine", tmp_path / "p")
    assert told.verdict == "unreadable"
    (odd,) = [item for item in told.compared if item.verdict != "equal"]
    assert (odd.video_id, odd.stream, odd.verdict, odd.rows, odd.published_rows) == ("a", "rgb", "unreadable", 6, 0)
    assert odd.problem.startswith(f"{path}: ")
    assert "\n" not in odd.problem
    assert re.search(DAMAGES[damage], odd.problem), odd.problem
    assert (len(told.compared), told.missing_there) == (6, 0)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
        import_features(unav_npy, tmp_path / "p", str(tmp_path / "back"), Stated(grid=UNAV))


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": rows_of(visual, audio)})
    publish(tmp_path / "p", "a", visual, audio)
    (tmp_path / "p" / "a_rgb.npy").rename(tmp_path / "elsewhere.npy")
    (tmp_path / "p" / "a_rgb.npy").symlink_to("../elsewhere.npy")
    assert compare(store, "i3d-vggish-mine", tmp_path / "p").verdict == "equal"


def test_files_that_are_missing_there_are_counted(tmp_path: Path) -> None:
    visual, audio = drawn()
    without_picture, silent = rows_of(None, audio), rows_of(visual, audio, silent=6)
    videos = {name: rows_of(visual, audio) for name in "ab"} | {"c": without_picture, "d": silent, "e": None}
    store = store_of(tmp_path / "s", videos)
    name = "i3d-vggish-mine"

    def missing(*lost: str) -> tuple[int, int, str]:
        for file in lost:
            (tmp_path / "p" / f"{file}.npy").unlink()
        told = compare(store, name, tmp_path / "p")
        return told.missing_there, told.only_here, told.verdict

    # What was not computed has no file there either: c's picture, d's sound, all of e.
    unav_npy.export(store, name, tmp_path / "p")
    assert missing() == (0, 1, "equal")
    assert missing("a_flow") == (1, 1, "equal")
    assert missing("b_vggish", "d_rgb") == (3, 1, "equal")
    assert missing("d_flow") == (4, 2, "equal")
    assert missing("a_rgb", "a_vggish", "b_rgb", "b_flow") == (8, 4, "equal")


def test_a_stream_that_the_recipe_leaves_out_is_not_missing(tmp_path: Path) -> None:
    visual, audio = drawn()
    store = store_of(tmp_path / "s", {"a": rows_of(visual[:, :1024], audio)}, width=1024, rgb=True, flow=False)
    publish(tmp_path / "p", "a", visual, None)
    (tmp_path / "p" / "a_flow.npy").unlink()
    told = compare(store, "i3d-vggish-mine", tmp_path / "p")
    assert (told.verdict, told.missing_there) == ("equal", 1)  # the sound


@pytest.mark.parametrize("wrong", [{"tolerance": -1.0}, {"tolerance": np.nan}, {"rows_apart": -1}, {"cosine": 1.5}])
def test_agreements_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cosine|tolerance"):
        Agreement(**wrong)
