from __future__ import annotations

import base64
import io
import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalog.grid import GridRule
from catalog.recipe import Recipe, VideoSampling
from jobs.report.reported_run import Judged, ReportedRun, read_predictions, read_run
from jobs.report.segments.timeline import (
    FRAME_HEIGHT_PX,
    FRAME_WIDTH_PX,
    MOST_SPANS,
    NUM_FRAMES,
    Media,
    Timeline,
    choose,
    energy_path,
    frame_strip,
    timeline,
)

CLASSES = [f"class {k}" for k in range(12)]


def _items(num: int, wrong: set[int]) -> list[Judged]:
    true_TK = np.eye(3, dtype=bool)[[0, 1, 2]]
    return [
        Judged(
            item_id=str(i),
            video_id=f"v{i}",
            true_TK=true_TK,
            predicted_TK=true_TK[::-1] if i in wrong else true_TK,
            score_TK=np.full((3, 3), np.nan),
            features_T=np.ones(3, dtype=bool),
        )
        for i in range(num)
    ]


def _one(make_run: Any, row: dict[str, Any], **fields: Any) -> tuple[Timeline, ReportedRun]:
    run = read_run(make_run("run", CLASSES, [{"item": "i", "video": "v"} | row], **fields))
    items = read_predictions(run, "test")
    assert items is not None
    return timeline(items[0], run, Media()), run


def test_choose_takes_half_wrong_half_right_and_the_same_again() -> None:
    items = _items(40, wrong=set(range(0, 40, 2)))
    chosen = choose(items, 6, seed=5)
    assert [item.num_right < item.num_segments for item in chosen] == [True] * 3 + [False] * 3
    assert [item.item_id for item in choose(items, 6, seed=5)] == [item.item_id for item in chosen]
    assert {item.item_id for item in choose(items, 6, seed=6)} != {item.item_id for item in chosen}


@pytest.mark.parametrize(("wrong", "expected_wrong"), [(set(), 0), ({1}, 1), (set(range(10)), 4)])
def test_choose_fills_up_where_one_kind_is_short(wrong: set[int], expected_wrong: int) -> None:
    chosen = choose(_items(10, wrong), 4, seed=0)
    assert len(chosen) == 4
    assert sum(item.num_right < item.num_segments for item in chosen) == expected_wrong


def test_choose_of_more_than_there_are_gives_all() -> None:
    assert len(choose(_items(3, {0}), 12, seed=0)) == 3
    assert choose([], 12, seed=0) == []


def test_timeline_of_one_class_a_segment_shows_runs_and_mistakes(make_run: Any) -> None:
    shown, _ = _one(
        make_run,
        {
            "labels_true": [12, 4, 4, 12, 12],
            "labels_pred": [12, 4, 7, 7, 12],
            "score": [0.5, 0.25, 0.5, 0.75, 0.5],
            "mask": [True, True, True, True, False],
        },
    )
    assert [[(b.left, b.width, b.label) for b in lane] for lane in shown.true_lanes] == [[(20, 40, "class 4")]]
    assert [[(b.left, b.width, b.label) for b in lane] for lane in shown.predicted_lanes] == [
        [(20, 20, "class 4"), (40, 40, "class 7")]
    ]
    assert shown.predicted_lanes[0][1].title == "class 7, 2 to 4 s, score 0.62"
    assert shown.wrong == ((40, 40),)
    assert shown.featureless == ((80, 20),)
    assert (shown.num_right, shown.num_segments, shown.duration_s) == (3, 5, 5)


def test_timeline_of_several_classes_at_once_keeps_bars_apart(make_run: Any) -> None:
    rng = np.random.default_rng(2)
    true_TK, predicted_TK = rng.random((2, 60, 12)) < 0.4
    shown, _ = _one(
        make_run,
        {
            "labels_true": [np.flatnonzero(row).tolist() for row in true_TK],
            "labels_pred": [np.flatnonzero(row).tolist() for row in predicted_TK],
            "score": [rng.random(row.sum()).tolist() for row in predicted_TK],
            "mask": [True] * 60,
        },
        background=None,
    )
    for lane in (*shown.true_lanes, *shown.predicted_lanes):
        for before, after in itertools.pairwise(lane):
            assert before.left + before.width <= after.left + 0.002
    assert sum(len(lane) for lane in shown.predicted_lanes) == MOST_SPANS
    num_runs = int((np.diff(predicted_TK.astype(int), axis=0, prepend=0) == 1).sum())
    assert shown.hidden == num_runs - MOST_SPANS
    assert sum(bar.width for lane in shown.true_lanes for bar in lane) == pytest.approx(true_TK.sum() / 60 * 100, abs=1)


def test_timeline_colours_differ_between_the_classes_shown(make_run: Any) -> None:
    labels = [0, 10, 1, 11, 2]  # classes 0 and 10 would have one colour by their numbers
    shown, _ = _one(make_run, {"labels_true": labels, "labels_pred": labels})
    assert len({colour for colour, _ in shown.legend}) == 5
    assert {label for _, label in shown.legend} == {f"class {k}" for k in labels}


def test_timeline_of_overlapping_windows_draws_hops_around_their_middles(make_run: Any) -> None:
    rule = GridRule(window_s=Fraction(2), hop_s=Fraction(1, 2))
    recipe = Recipe(
        name="overlap",
        encoder="descriptors",
        grid=rule,
        video=VideoSampling(frames_per_segment=1, height_px=16, width_px=16),
        audio=None,
    )
    shown, _ = _one(make_run, {"labels_true": [0, 12, 12], "labels_pred": [0, 12, 12]}, recipe=recipe)
    assert shown.duration_s == 3  # the last window: 1 .. 3 s
    (bar,) = shown.true_lanes[0]
    assert bar.title == "class 0, 0.75 to 1.25 s"


def test_frame_strip_puts_each_picture_in_its_cell() -> None:
    red_HWC = np.full((48, 200, 3), (255, 0, 0), dtype=np.uint8)
    blue_HWC = np.full((300, 100, 3), (0, 0, 255), dtype=np.uint8)
    uri = frame_strip([red_HWC, None, blue_HWC])
    prefix, _, data = uri.partition(",")
    assert prefix == "data:image/webp;base64"
    strip = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    assert strip.size == (3 * FRAME_WIDTH_PX, FRAME_HEIGHT_PX)
    middle = FRAME_HEIGHT_PX // 2
    colours = [strip.getpixel((int((i + 0.5) * FRAME_WIDTH_PX), middle)) for i in range(3)]
    for got, wanted in zip(colours, [(255, 0, 0), (127, 127, 127), (0, 0, 255)], strict=True):
        assert isinstance(got, tuple)
        assert max(abs(a - b) for a, b in zip(got, wanted, strict=True)) < 40  # lossy


def test_energy_path_rises_with_the_sound_and_stays_low_in_silence() -> None:
    def heights(path: str) -> list[float]:
        points = [pair.split(",") for pair in path.strip("MZ").split()]
        upper = points[: len(points) // 2]
        return [50 - float(y) for _, y in upper]

    loud = heights(energy_path(np.array([0.0, 0.2, 0.4])))
    assert loud[0] < 1
    assert loud[1] == pytest.approx(loud[2] / 2, rel=0.03)
    assert loud[2] > 45
    assert max(heights(energy_path(np.full(3, 1e-6)))) < 1
    assert max(heights(energy_path(np.array([np.nan, 0.5])))) < 50


def test_pictures_are_taken_within_the_axis(make_run: Any, tmp_path: Path) -> None:
    shown, _ = _one(make_run, {"labels_true": [0] * 5, "labels_pred": [0] * 5})
    assert len(shown.frame_times_s) == NUM_FRAMES
    assert shown.frame_times_s[0] == pytest.approx(0.25)
    assert shown.frame_times_s[-1] == pytest.approx(4.75)
