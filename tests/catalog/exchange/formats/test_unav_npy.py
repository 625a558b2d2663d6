"""Features of others in UnAV's layout: streams of one stride are read, of several refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from catalog.dataset import Dataset, Item
from catalog.exchange.formats import unav_npy
from catalog.exchange.importing import Stated, import_features
from catalog.grid import GridRule
from catalog.video import Video

I3D = GridRule(window_s=Fraction(24, 25), hop_s=Fraction(8, 25), tail="drop")
SECONDS = 12  # 35 rows


def dataset(ids: list[str], seconds: int = SECONDS) -> Dataset:
    return Dataset(
        name="unav100",
        classes=("dog",),
        items=tuple(Item(id=one, video_id=one, split="train", events=()) for one in ids),
        videos=tuple(Video(id=one, uri=f"{one}.mp4", duration_s=Fraction(seconds)) for one in ids),
        num_segments=None,
        background=None,
    )


def write(folder: Path, rows: Mapping[str, Mapping[str, int]]) -> Path:
    """Files of a video and stream with that many rows."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for video_id, streams in rows.items():
        for stream, count in streams.items():
            width = 128 if stream == "vggish" else 1024
            np.save(folder / f"{video_id}_{stream}.npy", rng.standard_normal((count, width)).astype(np.float32))
    return folder


def test_rows_of_rounding_are_cut_and_nothing_else_changes(tmp_path: Path) -> None:
    source = write(tmp_path / "features", {"a": {"rgb": 36, "flow": 35, "vggish": 34}})
    stated = Stated(grid=I3D, dataset=dataset(["a"]))
    store = import_features(unav_npy, source, str(tmp_path / "store"), stated)
    seen, heard = (store.read("imported", modality).values for modality in ("visual", "audio"))
    assert (seen.shape, heard.shape) == ((34, 2048), (34, 128))
    np.testing.assert_array_equal(seen[:, 1024:], np.load(source / "a_flow.npy")[:34])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"rgb": 36, "flow": 36, "vggish": 12}, "a_rgb.npy has 36 rows, a_flow.npy has 36 rows, a_vggish.npy has 12"),
        ({"rgb": 36, "flow": 36, "vggish": 33}, "the streams of 1 of 2 videos have different strides"),
        ({"rgb": 36, "flow": 12}, "a_flow.npy has 12 rows; its annotated 12 s make 35 with rows of 24/25 s every 8/25"),
    ],
)
def test_streams_of_different_strides_are_refused_with_their_lengths(
    tmp_path: Path, rows: dict[str, int], said: str
) -> None:
    source = write(tmp_path / "features", {"a": rows, "b": {"rgb": 36, "flow": 36, "vggish": 36}})
    with pytest.raises(ValueError, match=re.escape(said)):
        import_features(unav_npy, source, str(tmp_path / "store"), Stated(grid=I3D, dataset=dataset(["a", "b"])))
    assert not (tmp_path / "store").exists()


def test_one_stride_that_is_not_the_stated_one_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "features", {name: {"rgb": 12, "flow": 12, "vggish": 12} for name in "abc"})
    said = "the rows of 3 of 3 videos do not span their annotated seconds: a_rgb.npy has 12 rows"
    with pytest.raises(ValueError, match=said):
        import_features(unav_npy, source, str(tmp_path / "store"), Stated(grid=I3D, dataset=dataset(list("abc"))))
    # Nothing states how long the videos are: the user's word is taken.
    assert len(import_features(unav_npy, source, str(tmp_path / "store"), Stated(grid=I3D)).video_ids()) == 3


def test_files_of_another_data_set_are_told_by_two_names(tmp_path: Path) -> None:
    source = write(tmp_path / "features", {"a": {"rgb": 3, "flow": 3}})
    with pytest.raises(
        ValueError, match=r"no video of unav100 has a file here: there are a_\.\.\. .* wanted are other"
    ):
        import_features(unav_npy, source, str(tmp_path / "store"), Stated(grid=I3D, dataset=dataset(["other"])))
