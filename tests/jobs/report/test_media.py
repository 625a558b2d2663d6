from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.pages.charts import NUM_BINS
from jobs.report.media import read_media
from jobs.report.reported_run import Extraction, StoredVideo, read_predictions, read_run
from jobs.report.segments.timeline import NUM_FRAMES, Media, axis_s


def _media(make_run: Any, uri: Path | str, num_segments: int = 2, **stored: Any) -> Media:
    labels = [0] * num_segments
    run = read_run(make_run("run", ["a"], [{"item": "i", "video": "v", "labels_true": labels, "labels_pred": labels}]))
    items = read_predictions(run, "test")
    video = dataclasses.replace(StoredVideo(uri=str(uri), duration_s=2.0, status="extracted", reason=""), **stored)
    (media,) = read_media([("v", axis_s((items or ())[0], run))], Extraction(videos={"v": video}))
    return media


def _cell_colours(media: Media) -> list[str]:
    strip = Image.open(io.BytesIO(base64.b64decode(media.strip.partition(",")[2]))).convert("RGB")
    width = strip.size[0] / NUM_FRAMES
    middles = [strip.getpixel((int((i + 0.5) * width), strip.size[1] // 2)) for i in range(NUM_FRAMES)]
    names = []
    for colour in middles:
        assert isinstance(colour, tuple)
        r, _, b = colour[:3]
        names.append("red" if r > 150 and b < 100 else "blue" if b > 150 and r < 100 else "grey")
    return names


def _heights(media: Media) -> np.ndarray[Any, np.dtype[np.float64]]:
    points = [tuple(map(float, pair.split(","))) for pair in media.energy.strip("MZ").split()]
    return np.array([50 - y for _, y in points[: len(points) // 2]])


def test_read_media_puts_pictures_and_sound_where_they_are(make_run: Any, red_then_blue: Path) -> None:
    media = _media(make_run, red_then_blue)
    assert _cell_colours(media) == ["red"] * 5 + ["blue"] * 5
    heights_N = _heights(media)
    assert len(heights_N) == pytest.approx(NUM_BINS, abs=2)
    assert heights_N[: NUM_BINS // 2 - 10].max() < 5
    assert heights_N[NUM_BINS // 2 + 10 : NUM_BINS - 10].min() > 30


def test_read_media_shorter_than_the_axis_ends_before_it(make_run: Any, red_then_blue: Path) -> None:
    media = _media(make_run, red_then_blue, num_segments=4)
    assert _cell_colours(media)[:2] == ["red"] * 2
    assert _cell_colours(media)[3] == "blue"
    assert _cell_colours(media)[6:] == ["grey"] * 4
    assert len(_heights(media)) == pytest.approx(NUM_BINS / 2, abs=2)


def test_read_media_longer_than_the_axis_is_cut_to_it(make_run: Any, red_then_blue: Path) -> None:
    media = _media(make_run, red_then_blue, num_segments=1)
    assert _cell_colours(media) == ["red"] * 10
    assert len(_heights(media)) == NUM_BINS or media.energy_problem
    assert media.energy == "" or _heights(media)[: NUM_BINS - 20].max() < 5


def test_read_media_that_is_gone_says_so(make_run: Any, tmp_path: Path) -> None:
    media = _media(make_run, tmp_path / "gone.mp4")
    assert media.strip == media.energy == ""
    assert media.strip_problem.startswith("The medium can no longer be read. missing_file")


def test_read_media_that_is_no_medium_says_so(make_run: Any, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no medium at all\n" * 100)
    media = _media(make_run, tmp_path / "text.mp4")
    assert "not_media" in media.strip_problem


def test_read_media_that_broke_the_decoder_is_not_opened_again(make_run: Any, red_then_blue: Path) -> None:
    media = _media(make_run, red_then_blue, status="quarantined", reason="decoder_crash")
    assert media.strip == ""
    assert "it was not opened again" in media.strip_problem
