"""Frames by number from decord and PyAV: the same pictures, skipped or read through; damage counted and judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.errors import MediaError
from catalog.grid import GridRule
from catalog.recipe import Recipe, VideoSampling
from pipeline.clips import Clips
from pipeline.decode.frames import FrameTable, Geometry, resize
from pipeline.decode.probe import MediaInfo, probe
from pipeline.decode.video import DecordFailed, FrameReader, _PyavReader
from pipeline.decode.windows import DecodeReport, Restart, decode

av.logging.set_level(av.logging.PANIC)

# Files on which decord is used; the one that kills it is for the sandbox's tests only.
DECORD = [
    "good_h264_aac.mp4",
    "vfr.mp4",
    "negative_cts.mp4",
    "fragmented.mp4",
    "editlist_trim.mp4",
    "video_gap.mp4",
    "fps_0.5.mp4",
    "h264_opus.mkv",
    "vp9_opus.webm",
    "sorenson.flv",
    "mjpeg_pcm.mov",
    "rotated_90.mp4",
    "rotated_180.mp4",
    "interlaced.mp4",
    "gray8.mp4",
]
OTHERS = ["h264_aac.ts", "starts_at_10s.ts", "mpeg2_mp2.mpg", "mpeg4_bframes.avi", "mpeg4_mp3.avi", "av1_opus.mp4"]
OTHERS += ["editlist_tail_trim.mp4"]


def _path(shared: Path, name: str) -> str:
    for folder in ("malformed", "media/video"):
        if (shared / "data" / folder / name).exists():
            return str(shared / "data" / folder / name)
    raise FileNotFoundError(name)


def _read(path: str, wanted: list[int]) -> tuple[list[NDArray[np.uint8] | None], FrameReader]:
    try:
        return _read_once(path, wanted, probe(path))
    except DecordFailed as failure:
        return _read_once(path, wanted, failure.info)


def _read_once(path: str, wanted: list[int], info: MediaInfo) -> tuple[list[NDArray[np.uint8] | None], FrameReader]:
    reader = FrameReader(path, info, lambda: None)
    try:
        frames: list[NDArray[np.uint8] | None] = []
        for number, frame in reader.read(wanted):
            assert number == wanted[len(frames)]
            frames.append(None if frame is None else frame.copy())
        reader.finish()
        return frames, reader
    finally:
        reader.close()


def _oracle(path: str) -> Iterator[NDArray[np.uint8]]:
    """Shown pictures in the order of their pts by the slowest way: decode all, convert and turn each on its own."""
    with av.open(path) as container:
        picture: Any
        for picture in container.decode(container.streams.best("video")):
            yield np.rot90(picture.to_ndarray(format="rgb24"), round(picture.rotation / 90) % 4)


@pytest.mark.parametrize("name", DECORD + OTHERS)
def test_frames_by_number_are_the_pictures_in_order_of_time(shared: Path, name: str) -> None:
    path = _path(shared, name)
    want = list(_oracle(path))
    frames, reader = _read(path, list(range(len(want))))
    assert reader.path_used.startswith("decord") == (name in DECORD)
    assert reader.missing_frames == 0
    for number, (frame, truth) in enumerate(zip(frames, want, strict=True)):
        assert frame is not None
        assert frame.shape == truth.shape
        # Two generations of FFmpeg round chroma differently; a neighbouring frame differs by far more.
        assert np.abs(frame.astype(int) - truth).mean() < 1.5, number


@pytest.mark.parametrize("name", [*DECORD, *OTHERS, "women_long_jump.mp4", "vas_dog_02677.mp4", "fire2.mp4"])
def test_frames_skipped_to_equal_those_read_through(shared: Path, name: str) -> None:
    path = _path(shared, name)
    info = probe(path)
    assert info.video is not None
    count = len(info.video.pts_F)
    some = sorted({*range(3, count, 17), count - 1})
    every, _ = _read(path, list(range(count)))
    sparse, reader = _read(path, some)
    assert ("skipping" in reader.path_used) == info.video.sparse_safe
    for number, frame in zip(some, sparse, strict=True):
        np.testing.assert_array_equal(frame, every[number], err_msg=f"frame {number}")


@pytest.mark.parametrize("name", ["v_ZNVhz7ctTq0.mp4", "rotated_90.mp4", "rotated_180.mp4", "decord_video_90.mov"])
def test_frames_of_decord_and_pyav_are_equal_bytes_on_8_bit_video(shared: Path, name: str) -> None:
    path = _path(shared, name)
    info = probe(path)
    assert info.video is not None
    some = list(range(0, len(info.video.pts_F), 41))
    by_decord, reader = _read(path, some)
    assert reader.path_used == "decord, skipping"
    other = _PyavReader(path, info.video, lambda: None)
    for (_, frame), want in zip(other.read(some), by_decord, strict=True):
        np.testing.assert_array_equal(frame, want)
    other.close()


def test_damaged_packet_is_concealed_counted_and_recorded(shared: Path) -> None:
    path = _path(shared, "decord_corrupted.mp4")
    frames, reader = _read(path, list(range(50)))
    assert reader.path_used.startswith("pyav: decord fails")
    assert (reader.packet_errors, reader.missing_frames) == (1, 1)
    assert all(frame is not None for frame in frames)


def test_frames_before_the_damage_do_not_hang_on_how_far_decord_read_ahead(shared: Path) -> None:
    """Whatever decord gave before it failed is taken back: all frames are PyAV's."""
    path = _path(shared, "decord_corrupted.mp4")
    recipe = _recipe("r", "1/5", "1/5", VideoSampling(frames_per_segment=1, height_px=96, width_px=128))
    items = list(decode(path, probe(path), [recipe], video_id="v", window_bytes=1000))
    (restart,) = [i for i, item in enumerate(items) if isinstance(item, Restart)]
    given, again = items[:restart], items[restart + 1 : -1]
    assert given
    info = probe(path)
    assert info.video is not None
    info = replace(info, video=replace(info.video, not_decord="asked for", sparse_safe=False))
    alone = list(decode(path, info, [recipe], video_id="v", window_bytes=1000))[:-1]
    assert len(again) == len(alone)
    for one, other in zip(again, alone, strict=True):
        assert isinstance(one, tuple)
        assert isinstance(other, tuple)
        np.testing.assert_array_equal(one[1].frames_FHWC, other[1].frames_FHWC)


@pytest.mark.parametrize("times", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_damage_that_an_edit_list_hides_is_none(shared: Path, tmp_path: Path, times: int) -> None:
    """decord's thread met such packets or did not, as it came: extracted here, corrupt there."""
    whole = _path(shared, "editlist_tail_trim.mp4")
    with av.open(whole) as container:
        hidden = [p for p in container.demux(video=0) if p.size and p.is_discard]
        content = bytearray(Path(whole).read_bytes())
        for packet in hidden[3:]:
            assert packet.pos is not None
            content[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    want, _ = _read(whole, list(range(65)))
    for _ in range(times):
        frames, reader = _read(str(path), list(range(65)))
        assert (reader.packet_errors, reader.missing_frames) == (0, 0)
        assert reader.path_used == "pyav: an edit list hides the last packets"
        for frame, clean in zip(frames, want, strict=True):
            np.testing.assert_array_equal(frame, clean)


@pytest.mark.parametrize("wanted", [[0], [10, 60], list(range(100))])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("overreported_frames_tail.mp4", "truncated_media"),
        ("overreported_frames_middle.mp4", "corrupt_payload"),
        ("bitflip_mdat_1.mp4", "corrupt_payload"),
        ("no_pictures_at_all.mp4", "video_undecodable"),
        ("corrupt_avcc.mp4", "video_undecodable"),
    ],
)
def test_verdict_depends_on_the_medium_not_on_the_frames_asked_for(
    shared: Path, name: str, reason: str, wanted: list[int]
) -> None:
    with pytest.raises(MediaError) as caught:
        _read(_path(shared, name), wanted)
    assert caught.value.reason == reason


def test_broadcast_cut_between_key_frames_begins_at_its_first_picture(shared: Path) -> None:
    path = _path(shared, "starts_mid_gop.ts")
    info = probe(path)
    assert info.video is not None
    assert len(info.video.pts_F) == 50  # of 62 packets
    frames, reader = _read(path, [0, 49])
    assert reader.missing_frames == 0
    assert all(frame is not None for frame in frames)


def _sampling(frames: int, size: int = 16) -> VideoSampling:
    return VideoSampling(frames_per_segment=frames, height_px=size, width_px=size, fit="stretch", interpolation="area")


def _recipe(name: str, window_s: str, hop_s: str, video: VideoSampling) -> Recipe:
    grid = GridRule(window_s=Fraction(window_s), hop_s=Fraction(hop_s))
    return Recipe(name=name, encoder="none", grid=grid, video=video, audio=None)


def _rows(path: str, recipes: list[Recipe], window_bytes: int) -> dict[str, list[NDArray[np.uint8]]]:
    """For each recipe, (P, H, W, 3) of each segment."""
    rows: dict[str, list[NDArray[np.uint8]]] = {recipe.name: [] for recipe in recipes}
    for item in decode(path, probe(path), recipes, video_id="v", window_bytes=window_bytes):
        if isinstance(item, DecodeReport):
            continue
        if isinstance(item, Restart):
            rows = {name: [] for name in rows}
            continue
        name, clips = item
        assert isinstance(clips, Clips)
        assert clips.first == len(rows[name])
        rows[name] += [clips.frames_FHWC[index] for index in clips.frame_index_SP]
    return rows


@pytest.mark.parametrize("window_bytes", [1000, 20_000, 32 << 20])
def test_windows_of_any_size_and_recipes_together_give_what_each_gives_alone(shared: Path, window_bytes: int) -> None:
    path = _path(shared, "good_10s.mp4")
    info = probe(path)
    assert info.video is not None
    recipes = [
        _recipe("one", "1", "1", _sampling(1)),
        _recipe("overlapping", "3.2", "0.4", _sampling(7)),
        _recipe("gaps", "0.5", "2", _sampling(3)),
        _recipe("other-size", "1", "1", _sampling(2, 24)),
    ]
    together = _rows(path, recipes, window_bytes)
    frames, _ = _read(path, list(range(250)))
    table = FrameTable(pts_F=info.video.pts_F, time_base=info.video.time_base, t0_s=info.t0_s)
    for recipe in recipes:
        grid = recipe.grid.grid(info.duration_s)
        assert len(together[recipe.name]) == grid.count
        assert recipe.video is not None
        for segment, got in enumerate(together[recipe.name]):
            times_s = grid.clip_times_s(segment, recipe.video.frames_per_segment, recipe.video.phase)
            for time_s, frame in zip(times_s, got, strict=True):
                truth = frames[table.shown_at(time_s)]
                assert truth is not None
                np.testing.assert_array_equal(frame, resize(truth, Geometry.of(recipe.video)))


def test_overlapping_segments_hold_each_frame_once(shared: Path) -> None:
    recipe = _recipe("overlapping", "4", "1", _sampling(100))
    items = list(decode(p := _path(shared, "good_10s.mp4"), probe(p), [recipe], video_id="v", window_bytes=32 << 20))
    clips = items[0][1]  # type: ignore[index]  # the first is (name, Clips)
    assert clips.frame_index_SP.shape == (7, 100)
    assert len(clips.frames_FHWC) == 250


def _graded(path: Path, width_px: int, height_px: int) -> Path:
    """Six frames whose colours grow along both sides and from frame to frame."""
    y, x = np.mgrid[:height_px, :width_px]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv444p"
        for number in range(6):
            planes = [x * 255 // width_px, y * 255 // height_px, np.full_like(x, 40 * number)]
            frame = av.VideoFrame.from_ndarray(np.stack(planes, axis=-1).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# Where decord takes the padding of its lines for a fourth channel, or for more.
PADDED = [(8, 66), (12, 40), (16, 8), (24, 32), (48, 36), (72, 50)]


@pytest.mark.parametrize(
    ("width_px", "height_px"),
    [
        *PADDED,
        *((width, height) for width in (9, 31, 64, 130) for height in (8, 45)),
        *(
            pytest.param(width, height, marks=pytest.mark.slow)
            for width in range(8, 131)
            for height in (*range(8, 67, 7), 66)
        ),
    ],
)
def test_frames_of_every_size_are_what_pyav_shows(tmp_path: Path, width_px: int, height_px: int) -> None:
    path = str(_graded(tmp_path / "v.mp4", width_px, height_px))
    want = list(_oracle(path))
    frames, reader = _read(path, list(range(6)))
    assert (width_px, height_px) not in PADDED or reader.path_used.startswith("pyav: decord reads")
    for frame, wanted in zip(frames, want, strict=True):
        assert frame is not None
        assert frame.shape == (height_px, width_px, 3)
        np.testing.assert_array_equal(frame, wanted)


@pytest.mark.parametrize("name", ["second_is_default.mkv", "second_is_default.mp4"])
def test_the_track_that_the_probe_chose_is_the_one_that_is_read(shared: Path, name: str) -> None:
    path = str(shared / "cases" / "two-picture-tracks" / name)
    info = probe(path)
    assert info.video is not None
    assert info.video.index == 1
    frames, _ = _read(path, [0, 10])
    for frame in frames:
        assert frame is not None
        assert frame[10, 10].tolist() == [0, 0, 254]
