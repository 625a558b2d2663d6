"""Frames as their display matrix shows them: all eight orientations, by both decoders' paths, pixel by pixel."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.decode.probe import MediaInfo, probe
from pipeline.decode.video import DecordFailed, FrameReader

# (a, b, c, d): a coded point (x, y) is shown at (a x + c y, b x + d y).
ORIENTATIONS = {
    "as coded": (1, 0, 0, 1),
    "turned by 90": (0, 1, -1, 0),
    "turned by 180": (-1, 0, 0, -1),
    "turned by 270": (0, -1, 1, 0),
    "mirrored left and right": (-1, 0, 0, 1),
    "mirrored up and down": (1, 0, 0, -1),
    "mirrored about the diagonal": (0, 1, 1, 0),
    "mirrored about the other diagonal": (0, -1, -1, 0),
}


def video(path: Path, width_px: int, height_px: int, matrix: tuple[int, int, int, int]) -> Path:
    """Three frames of coloured quarters, no two alike, under a display matrix written into the track's header."""
    frame = np.zeros((height_px, width_px, 3), np.uint8)
    top, left = slice(0, height_px // 2), slice(0, width_px // 2)
    frame[top, left], frame[top, width_px // 2 :] = (250, 0, 0), (0, 250, 0)
    frame[height_px // 2 :, left], frame[height_px // 2 :, width_px // 2 :] = (0, 0, 250), (250, 250, 0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "crf": "4", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    a, b, c, d = (number * 2**16 for number in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 4 + 40, a, b, 0, c, d, 0, 0, 0, 2**30)
    path.write_bytes(bytes(data))
    return path


def shown(coded: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Each pixel put where the matrix says, moved so that the first row and column are 0."""
    a, b, c, d = matrix
    height, width, _ = coded.shape
    points = {(x, y): (a * x + c * y, b * x + d * y) for x in range(width) for y in range(height)}
    left, top = (min(point[axis] for point in points.values()) for axis in (0, 1))
    size = (height, width) if a else (width, height)
    made = np.zeros((*size, 3), np.uint8)
    for (x, y), (at_x, at_y) in points.items():
        made[at_y - top, at_x - left] = coded[y, x]
    return made


def frame_at(path: Path, info: MediaInfo, number: int) -> NDArray[np.uint8]:
    reader = FrameReader(str(path), info, lambda: None)
    try:
        ((_, frame),) = reader.read([number])
    except DecordFailed as failure:
        return frame_at(path, failure.info, number)
    finally:
        reader.close()
    assert frame is not None
    return frame


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize(("width_px", "height_px"), [(64, 48), (64, 64)])
@pytest.mark.parametrize("decoder", ["chosen", "pyav"])
def test_frames_are_shown_as_the_display_matrix_says(
    tmp_path: Path, name: str, width_px: int, height_px: int, decoder: str
) -> None:
    path = video(tmp_path / "v.mp4", width_px, height_px, ORIENTATIONS[name])
    with av.open(str(path)) as container:
        coded = np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"), dtype=np.uint8)
    info = probe(str(path))
    assert info.video is not None
    assert info.video.not_decord == ("decord does not mirror" if "mirrored" in name else "")
    if decoder == "pyav":
        info = replace(info, video=replace(info.video, not_decord="asked for", sparse_safe=False))
    frame = frame_at(path, info, 1)
    np.testing.assert_array_equal(frame, shown(coded, ORIENTATIONS[name]))


def test_mirrored_files_of_a_front_camera(shared: Path) -> None:
    folder = shared / "cases" / "mirrored-display-matrix"
    red, white = {}, {}
    for path in sorted(folder.glob("*.mp4")):
        frame = frame_at(path, probe(str(path)), 10)
        corners = {"top left": frame[4, 4], "top right": frame[4, -5], "bottom left": frame[-5, 4]}
        corners["bottom right"] = frame[-5, -5]
        (red[path.stem],) = [name for name, pixel in corners.items() if pixel[0] > 200 and pixel[1] < 60]
        (white[path.stem],) = [name for name, pixel in corners.items() if pixel.min() > 200]
    assert red == {"as_coded": "top left", "mirrored_left_right": "top right", "mirrored_up_down": "bottom left"}
    assert white == {"as_coded": "bottom right", "mirrored_left_right": "bottom left", "mirrored_up_down": "top right"}
