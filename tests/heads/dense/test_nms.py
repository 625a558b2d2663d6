"""Suppression against the goldens of the published code, and against its order of work written as slow loops."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heads.dense.candidates import Candidates
from heads.dense.nms import Suppression, suppress, vote


def candidates_of(segments: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any]) -> Candidates:
    return Candidates(
        segments_N2=segments.astype(np.float64), scores_N=scores.astype(np.float32), labels_N=labels.astype(np.int64)
    )


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "parity" / "heads" / "nms"


def test_suppress_equals_goldens_in_every_mode(folder: Path) -> None:
    golden = np.load(folder / "nms.npz", allow_pickle=False)
    told = json.loads((folder / "nms.json").read_text())
    for case in told["cases"]:
        given, params = case["set"], told["params"][case["param"]]
        kept = suppress(
            candidates_of(*(golden[f"{given}/{part}"] for part in ("segs", "scores", "labels"))),
            Suppression(
                method="gaussian" if params["use_soft_nms"] else "hard",
                sigma=params["sigma"],
                iou=params["iou_threshold"],
                min_score=params["min_score"],
                most_a_class=params["max_seg_num"],
                most=params["max_seg_num"],
                # With classes apart, published code takes the setting and does not vote.
                voting=None if params["multiclass"] else params["voting_thresh"] or None,
                class_aware=params["multiclass"],
            ),
        )
        key = f"{given}/p{case['param']}"
        assert len(kept) == case["n_out"], key
        wanted = {part: golden[f"{key}/{part}"] for part in ("segs", "scores", "labels")}
        np.testing.assert_allclose(kept.scores_N, wanted["scores"], rtol=0, atol=1e-6, err_msg=key)
        if not case["ties"]:  # which of equals stays is the implementation's
            np.testing.assert_array_equal(kept.labels_N, wanted["labels"], key)
            # Published voting has NaN for segments without length; here they stay.
            real = ~np.isnan(wanted["segs"]).any(axis=1)
            assert (real | (np.ptp(kept.segments_N2, axis=1) == 0)).all(), key
            np.testing.assert_allclose(kept.segments_N2[real], wanted["segs"][real], rtol=0, atol=1e-4, err_msg=key)


@pytest.mark.parametrize(("number", "method"), [(0, "hard"), (1, "linear"), (2, "gaussian")])
def test_suppress_of_one_class_equals_goldens(folder: Path, number: int, method: Any) -> None:
    golden = np.load(folder / "nms.npz", allow_pickle=False)
    told = json.loads((folder / "nms.json").read_text())["lowlevel"]
    segments, scores = (golden[f"lowlevel{number}/{part}"] for part in ("segs", "scores"))
    how = Suppression(
        method=method, iou=told["iou_threshold"], sigma=told["sigma"], min_score=told["min_score"], most=80
    )
    kept = suppress(candidates_of(segments, scores, np.zeros(len(scores))), how)
    np.testing.assert_array_equal(kept.segments_N2, golden[f"lowlevel{number}/dets"][:, :2])
    np.testing.assert_allclose(kept.scores_N, golden[f"lowlevel{number}/dets"][:, 2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("threshold", ["0.5", "0.75", "0.95"])
def test_vote_equals_goldens(folder: Path, threshold: str) -> None:
    golden = np.load(folder / "nms.npz", allow_pickle=False)
    inputs = (golden[f"voting/{part}"] for part in ("nms_segs", "all_segs", "all_scores"))
    # Float32 sums of up to 60 numbers of the order of 200.
    np.testing.assert_allclose(
        vote(*inputs, iou=float(threshold)), golden[f"voting/out_{threshold}"], rtol=0, atol=1e-4
    )


def test_vote_for_a_segment_without_length_leaves_it() -> None:
    segments = np.array([[3.0, 3.0], [8.0, 8.0], [2.0, 4.0], [2.0, 4.5]])
    moved = vote(segments, segments, np.array([0.5, 0.2, 0.3, 0.1], dtype=np.float32), iou=0.75)
    np.testing.assert_allclose(moved, [[3.0, 3.0], [8.0, 8.0], [2.0, 4.125], [2.0, 4.125]], rtol=0, atol=1e-6)


def slow_soft(segments: NDArray[Any], scores: NDArray[Any], how: Suppression) -> list[tuple[int, float]]:
    """Rows and scores picked, as published: selection in place, with swaps."""
    held = [[row, *segments[row].astype(np.float32), np.float32(scores[row])] for row in range(len(scores))]
    i = 0
    while i < len(held):
        best = max(range(i, len(held)), key=lambda n: held[n][3])  # the first of equals
        held[i], held[best] = held[best], held[i]
        n = i + 1
        while n < len(held):
            overlap = slow_overlap(held[i][1:3], held[n][1:3])
            if how.method == "gaussian":
                held[n][3] *= np.float32(math.exp(-(overlap * overlap) / how.sigma))
            elif overlap >= np.float32(how.iou):
                held[n][3] *= 1 - overlap
            if held[n][3] < np.float32(how.min_score):
                held[n] = held[-1]
                held.pop()
            else:
                n += 1
        i += 1
    return [(row, score) for row, _, _, score in held]


def slow_hard(segments: NDArray[Any], scores: NDArray[Any], how: Suppression) -> list[tuple[int, float]]:
    kept: list[int] = []
    for row in sorted(range(len(scores)), key=lambda n: -scores[n]):
        if how.min_score > 0 and scores[row] <= np.float32(how.min_score):
            continue
        if all(slow_overlap(segments[row], segments[other]) < np.float32(how.iou) for other in kept):
            kept.append(row)
    return [(row, scores[row]) for row in kept]


def slow_overlap(one: Any, other: Any) -> np.float32:
    (s, e), (t, f) = (np.asarray(x, dtype=np.float32) for x in (one, other))
    shared = max(np.float32(0), min(e, f) - max(s, t))
    longer = np.float32(1e-6)
    return np.float32(shared / ((e - s + longer) + (f - t + longer) - shared))


def slow_suppress(given: Candidates, how: Suppression) -> list[tuple[int, float]]:
    """Every class to its cap, joined, then the best."""
    labels = given.labels_N if how.class_aware else np.zeros_like(given.labels_N)
    joined: list[tuple[int, float]] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        work = slow_hard if how.method == "hard" else slow_soft
        picks = work(given.segments_N2[rows], given.scores_N[rows], how)
        joined += [(int(rows[row]), score) for row, score in picks[: how.most_a_class]]
    return sorted(joined, key=lambda pick: -pick[1])[: how.most]


def crowd(seed: int, *, equal: bool) -> Candidates:
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 40, 150) / (2 if equal else 1.0) + (0 if equal else rng.random(150))
    segments = np.column_stack([start, start + (rng.integers(1, 30, 150) / 2 if equal else rng.random(150) * 15)])
    # So long that 1e-6 is lost in float32: overlaps of exactly a half occur.
    segments *= 64 if equal else 1
    scores = rng.integers(1, 9, 150) / 10 if equal else rng.random(150)
    return candidates_of(segments, scores, rng.integers(0, 4, 150) * 3)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("class_aware", [True, False])
@pytest.mark.parametrize("method", ["gaussian", "linear", "hard"])
@pytest.mark.parametrize(("most_a_class", "most", "min_score"), [(100, 20, 0.05), (6, 100, 0.001), (200, 200, 0.3)])
def test_suppress_is_the_published_order_of_work(
    method: Any, class_aware: bool, equal: bool, most_a_class: int, most: int, min_score: float
) -> None:
    how = Suppression(
        method=method,
        iou=0.5,
        most_a_class=most_a_class,
        most=most,
        min_score=min_score,
        class_aware=class_aware,
    )
    for seed in range(3):
        given = crowd(seed, equal=equal)
        wanted = slow_suppress(given, how)
        kept = suppress(given, how)
        rows = [row for row, _ in wanted]
        # Equal picks one by one, where scores are equal too: same rows, not only same scores.
        np.testing.assert_array_equal(kept.segments_N2, given.segments_N2[rows])
        np.testing.assert_array_equal(kept.labels_N, given.labels_N[rows])
        # Single against double precision of exp, over at most 200 factors.
        np.testing.assert_allclose(kept.scores_N, [score for _, score in wanted], rtol=2e-5)


def test_suppress_keeps_its_input_and_a_best_of_any_score() -> None:
    given = candidates_of(
        np.array([[0.0, 4.0], [1.0, 5.0], [9.0, 9.5]]), np.array([1e-5, 2e-5, 0.5]), np.array([1, 1, 0])
    )
    before = given.segments_N2.copy(), given.scores_N.copy(), given.labels_N.copy()
    kept = suppress(given, Suppression())
    assert kept.labels_N.tolist() == [0, 1]
    assert kept.segments_N2[1].tolist() == [1.0, 5.0]
    assert suppress(given, Suppression(method="hard")).labels_N.tolist() == [0]
    for column, was in zip((given.segments_N2, given.scores_N, given.labels_N), before, strict=True):
        np.testing.assert_array_equal(column, was)


def test_suppress_by_score_alone_keeps_the_best_of_each_class() -> None:
    given = crowd(0, equal=True)
    kept = suppress(given, Suppression(method="none", min_score=0.3, most_a_class=5, most=18))
    order = sorted(range(150), key=lambda n: (-given.scores_N[n], given.labels_N[n]))
    wanted: list[int] = []
    for row in order:
        same = sum(given.labels_N[other] == given.labels_N[row] for other in wanted)
        if given.scores_N[row] >= np.float32(0.3) and same < 5 and len(wanted) < 18:
            wanted.append(row)
    np.testing.assert_array_equal(kept.segments_N2, given.segments_N2[wanted])


def test_suppress_in_another_order_of_classes_is_the_same() -> None:
    given = crowd(1, equal=False)
    order = np.random.default_rng(0).permutation(150)
    again = candidates_of(given.segments_N2[order], given.scores_N[order], given.labels_N[order])
    for method in ("gaussian", "linear", "hard", "none"):
        how = Suppression(method=method, most=40)
        np.testing.assert_array_equal(suppress(again, how).segments_N2, suppress(given, how).segments_N2)


def test_suppress_of_wrong_settings_or_scores_raises() -> None:
    with pytest.raises(ValueError, match="method must be one of"):
        Suppression(method="soft")  # type: ignore[arg-type]  # a setting that cannot be
    with pytest.raises(ValueError, match="sigma must be more than 0"):
        Suppression(sigma=0.0)
    with pytest.raises(ValueError, match="class_aware=False"):
        Suppression(voting=0.75)
    with pytest.raises(ValueError, match="1 candidates have one"):
        suppress(candidates_of(np.zeros((1, 2)), np.array([np.nan]), np.zeros(1)), Suppression())
