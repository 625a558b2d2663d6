"""OV-AVEBench's measures against the goldens of the published code and a slow loop over the definition."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from heads.metrics.ovavebench import PUBLISHED_BATCH_SIZE, VideoScores, summary, video_scores

# The goldens' segment F1 was computed in float32.
TOLERANCE = 1e-6


def golden(shared: Path, case: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    folder = shared / "parity" / "heads" / "ovavel"
    numbers = {str(entry["case"]): entry for entry in json.loads((folder / "ovavel.json").read_text())}
    with np.load(folder / "ovavel.npz", allow_pickle=False) as arrays:
        mine = {name.removeprefix(f"{case}/"): arrays[name] for name in arrays if name.startswith(f"{case}/")}
    return mine, numbers.get(case.removeprefix("case"), {})


def truth_of(arrays: dict[str, NDArray[Any]], background: int) -> NDArray[np.int64]:
    return np.where(arrays["avc"] > 0, arrays["category"][:, None], background).astype(np.int64)


@pytest.mark.parametrize("case", [*(f"case{i}" for i in range(8)), "real"])
def test_video_scores_published_predictions_equal_golden(shared: Path, case: str) -> None:
    arrays, numbers = golden(shared, case)
    background = numbers["bg"]
    scores = video_scores(arrays["pred"], truth_of(arrays, background), background=background)
    np.testing.assert_allclose(scores.accuracy_N, arrays["acc"], atol=TOLERANCE)
    np.testing.assert_allclose(scores.segment_f1_N, arrays["seg"], atol=TOLERANCE)
    np.testing.assert_allclose(scores.event_f1_N, arrays["eve"], atol=TOLERANCE)
    means = summary(scores)
    wanted = [numbers["acc"], numbers["seg"], numbers["eve"]]
    assert [means["accuracy"], means["segment_f1"], means["event_f1"]] == pytest.approx(wanted, abs=TOLERANCE)
    assert means["mean"] == pytest.approx(sum(wanted) / 3, abs=TOLERANCE)


def test_summary_real_videos_by_batch_and_by_group_equal_golden(shared: Path) -> None:
    arrays, numbers = golden(shared, "real")
    scores = video_scores(arrays["pred"], truth_of(arrays, 67), background=67)
    by_video = summary(scores, arrays["seen"])
    by_batch = summary(scores, batch_size=PUBLISHED_BATCH_SIZE)
    short = {"accuracy": "acc", "segment_f1": "seg", "event_f1": "eve"}
    for name, key in short.items():
        assert by_video[f"{name}_seen"] == pytest.approx(numbers["seen"][key], abs=TOLERANCE)
        assert by_video[f"{name}_unseen"] == pytest.approx(numbers["unseen"][key], abs=TOLERANCE)
        assert by_batch[name] == pytest.approx(numbers["batch32"][key], abs=TOLERANCE)


@pytest.mark.parametrize("strategy", ["v0", "v01"])
def test_video_scores_training_free_flags_equal_golden(shared: Path, strategy: str) -> None:
    arrays, numbers = golden(shared, "tf")
    _, numbers = golden(shared, f"tf_{strategy}")
    flagged = arrays[f"{strategy}/is_event"] > 0
    predicted = np.where(flagged, arrays[f"{strategy}/event_onehot"].argmax(axis=1)[:, None], 67)
    scores = video_scores(predicted, truth_of(arrays, 67), background=67, flagged_NT=flagged)
    got = np.stack([scores.accuracy_N, scores.segment_f1_N, scores.event_f1_N], axis=1)
    np.testing.assert_allclose(got, arrays[f"{strategy}/per_video_acc_seg_eve"], atol=TOLERANCE)
    means = summary(scores)
    assert means["segment_f1"] == pytest.approx(numbers["seg"], abs=TOLERANCE)
    assert means["event_f1"] == pytest.approx(numbers["eve"], abs=TOLERANCE)


def runs_of(held: list[bool]) -> list[set[int]]:
    """The maximal runs of True, as sets of places."""
    runs: list[set[int]] = []
    for place, here in enumerate(held):
        if here and place and held[place - 1]:
            runs[-1].add(place)
        elif here:
            runs.append({place})
    return runs


def slow_scores(
    predicted: list[int], true: list[int], background: int, counted: list[bool], flagged: list[bool]
) -> tuple[Fraction, Fraction, Fraction]:
    """One video, from the definition: a matrix of rows, then each row."""
    places = range(len(true))
    right = [predicted[t] == true[t] for t in places if counted[t]]
    segment, event = [], []
    for row in range(background + 1):
        said = [
            counted[t] and (flagged[t] and predicted[t] == row if row < background else not flagged[t]) for t in places
        ]
        real = [counted[t] and true[t] == row for t in places]
        if not any(said) and not any(real):
            continue
        hits = sum(s and r for s, r in zip(said, real, strict=True))
        false = sum(s and not r for s, r in zip(said, real, strict=True))
        missed = sum(r and not s for s, r in zip(said, real, strict=True))
        segment.append(Fraction(2 * hits, 2 * hits + false + missed))
        said_runs, real_runs = runs_of(said), runs_of(real)

        def found(one: set[int], others: list[set[int]]) -> bool:
            return any(Fraction(len(one & other), len(one | other)) >= Fraction(1, 2) for other in others)

        hits = sum(found(run, real_runs) for run in said_runs)
        missed = sum(not found(run, said_runs) for run in real_runs)
        event.append(Fraction(2 * hits, 2 * hits + len(said_runs) - hits + missed))
    if not segment:
        return Fraction(sum(right), len(right)), Fraction(1), Fraction(1)
    return Fraction(sum(right), len(right)), sum(segment) / Fraction(len(segment)), sum(event) / Fraction(len(event))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), num_videos=st.integers(1, 5), num_segments=st.integers(1, 12), background=st.integers(1, 4))
def test_video_scores_any_labels_equal_slow_loop(
    data: st.DataObject, num_videos: int, num_segments: int, background: int
) -> None:
    def table(values: st.SearchStrategy[Any]) -> NDArray[Any]:
        row = st.lists(values, min_size=num_segments, max_size=num_segments)
        return np.array(data.draw(st.lists(row, min_size=num_videos, max_size=num_videos)))

    predicted, true = table(st.integers(0, background)), table(st.integers(0, background))
    counted, flagged = table(st.booleans()), table(st.booleans())
    counted[:, 0] = True  # a video without any would be refused
    scores = video_scores(predicted, true, background=background, counted_NT=counted, flagged_NT=flagged)
    usual = video_scores(predicted, true, background=background)
    for n in range(num_videos):
        row = (predicted[n].tolist(), true[n].tolist(), background)
        wanted = slow_scores(*row, counted[n].tolist(), flagged[n].tolist())
        got = (scores.accuracy_N[n], scores.segment_f1_N[n], scores.event_f1_N[n])
        assert got == pytest.approx([float(w) for w in wanted], abs=1e-12)
        plain = slow_scores(*row, [True] * num_segments, [k != background for k in row[0]])
        got = (usual.accuracy_N[n], usual.segment_f1_N[n], usual.event_f1_N[n])
        assert got == pytest.approx([float(w) for w in plain], abs=1e-12)


def test_video_scores_right_prediction_is_one_everywhere() -> None:
    true = np.array([[0, 0, 3, 1, 1], [3, 3, 3, 3, 3]])
    scores = video_scores(true, true, background=3)
    for values in (scores.accuracy_N, scores.segment_f1_N, scores.event_f1_N):
        assert values.tolist() == [1, 1]


def test_video_scores_overlap_of_exactly_half_is_a_hit() -> None:
    true = np.array([[0, 0, 0, 0, 2, 2]])
    half = video_scores(np.array([[0, 0, 1, 1, 1, 1]]), true, background=2)
    # Class 0 is found at 2 / 4; class 1 is false; the background is missed.
    assert half.event_f1_N[0] == pytest.approx(1 / 3)
    less = video_scores(np.array([[0, 1, 1, 1, 1, 1]]), true, background=2)
    assert less.event_f1_N[0] == 0


def test_video_scores_padding_that_does_not_count_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 4, size=(2, 20, 6))
    padded = np.pad(predicted, ((0, 0), (0, 3)), constant_values=1), np.pad(true, ((0, 0), (0, 3)), constant_values=1)
    counted = np.arange(9)[None, :] < np.full((20, 1), 6)
    wanted, got = video_scores(predicted, true, background=3), video_scores(*padded, background=3, counted_NT=counted)
    np.testing.assert_array_equal(got.event_f1_N, wanted.event_f1_N)
    np.testing.assert_array_equal(got.segment_f1_N, wanted.segment_f1_N)
    np.testing.assert_array_equal(got.accuracy_N, wanted.accuracy_N)


def test_video_scores_other_order_of_videos_and_names_of_classes_same_scores() -> None:
    rng = np.random.default_rng(1)
    predicted, true = rng.integers(0, 5, size=(2, 30, 10))
    order, names = rng.permutation(30), np.append(rng.permutation(4), 4)
    wanted = video_scores(predicted, true, background=4)
    got = video_scores(names[predicted[order]], names[true[order]], background=4)
    np.testing.assert_array_equal(got.event_f1_N, wanted.event_f1_N[order])
    np.testing.assert_allclose(got.segment_f1_N, wanted.segment_f1_N[order], rtol=1e-15)


def test_summary_smaller_last_batch_weighs_as_much() -> None:
    values = np.array([1.0, 0.0, 1.0])
    scores = VideoScores(accuracy_N=values, segment_f1_N=values, event_f1_N=values)
    by_batch = summary(scores, np.array([True, False, True]), batch_size=2)
    assert by_batch["segment_f1"] == (0.5 + 1) / 2
    assert by_batch["accuracy"] == 2 / 3
    assert by_batch["mean_seen"] == 1
    assert by_batch["mean_unseen"] == 0


def test_summary_group_without_videos_has_no_numbers() -> None:
    scores = video_scores(np.array([[0]]), np.array([[0]]), background=1)
    assert set(summary(scores, np.array([True]))) == {
        *("accuracy", "segment_f1", "event_f1", "mean"),
        *("accuracy_seen", "segment_f1_seen", "event_f1_seen", "mean_seen"),
    }


@pytest.mark.parametrize(
    ("predicted", "true", "counted", "told"),
    [
        ([[0, 1]], [[0], [1]], None, "one shape"),
        ([[0, 3]], [[0, 1]], None, r"predicted classes must lie in \[0, 2\], got 0 to 3"),
        ([[0, 1]], [[0, -1]], None, "true classes must lie in"),
        ([[0], [1]], [[0], [1]], [[True], [False]], "video 1 has no segment to count"),
    ],
)
def test_video_scores_wrong_input_raises(predicted: Any, true: Any, counted: Any, told: str) -> None:
    mask = None if counted is None else np.array(counted)
    with pytest.raises(ValueError, match=told):
        video_scores(np.array(predicted), np.array(true), background=2, counted_NT=mask)


def test_summary_wrong_input_raises() -> None:
    none = video_scores(np.zeros((0, 3), dtype=int), np.zeros((0, 3), dtype=int), background=2)
    with pytest.raises(ValueError, match="no video"):
        summary(none)
    one = video_scores(np.array([[0]]), np.array([[0]]), background=1)
    with pytest.raises(ValueError, match="batch_size must be above 0"):
        summary(one, batch_size=0)
    with pytest.raises(ValueError, match=r"seen must be of shape \(1,\)"):
        summary(one, np.array([True, False]))
