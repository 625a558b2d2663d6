"""The run filter against a slow obvious loop, hand-made cases, laws, and flips of the real test labels."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.datasets import ave
from heads.evaluation.run_filter import PUBLISHED_MINIMUM, filter_runs


def slow_filter(labels: list[int], minimum: int) -> list[int]:
    """One item, run by run."""
    labels = list(labels)
    while True:
        runs = [[label, len(list(group))] for label, group in itertools.groupby(labels)]
        if len(runs) < 2:
            return labels
        lengths = [length for _, length in runs]
        shortest = lengths.index(min(lengths))
        if lengths[shortest] >= minimum:
            return labels
        neighbours = [n for n in (shortest - 1, shortest + 1) if 0 <= n < len(runs)]
        longer = max(neighbours, key=lambda n: lengths[n])  # the first of equals: the left one
        runs[shortest][0] = runs[longer][0]
        labels = [label for label, length in runs for _ in range(length)]


@pytest.mark.parametrize(
    ("labels", "minimum", "wanted"),
    [
        ("aaabaaaaaa", 2, "aaaaaaaaaa"),
        ("aabbaaaaaa", 2, "aabbaaaaaa"),
        ("aabbaaaaaa", 3, "bbbbaaaaaa"),  # the leftmost of equals first, and the left end has one neighbour
        ("aaabbaaaaa", 3, "aaaaaaaaaa"),
        ("aaabccccaa", 2, "aaacccccaa"),  # the longer neighbour
        ("aaabcccaaa", 2, "aaaacccaaa"),  # the left of equals
        ("abababab", 2, "bbbbbbbb"),
        ("baaaaaaaaa", 2, "aaaaaaaaaa"),
        ("aaaaaaaaab", 2, "aaaaaaaaaa"),
        ("aaaaabbbbb", 9, "bbbbbbbbbb"),
        ("a", 5, "a"),
        ("aa", 5, "aa"),
    ],
)
def test_filter_runs_by_hand(labels: str, minimum: int, wanted: str) -> None:
    got = filter_runs(np.array([[ord(letter) for letter in labels]]), minimum=minimum)
    assert "".join(map(chr, got[0])) == wanted


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    num_items, num_segments = draw(st.integers(1, 5)), draw(st.integers(1, 14))
    letters = st.integers(0, draw(st.integers(1, 4)))
    row = st.lists(letters, min_size=num_segments, max_size=num_segments)
    flags = st.lists(st.booleans(), min_size=num_segments, max_size=num_segments)
    labels = draw(st.lists(row, min_size=num_items, max_size=num_items))
    mask = draw(st.lists(flags, min_size=num_items, max_size=num_items))
    return np.array(labels), np.array(mask), draw(st.integers(1, 6))


@settings(deadline=None, max_examples=300)
@given(batches())
def test_filter_runs_any_labels_and_masks_equal_slow_loop(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    labels, mask, minimum = case
    got = filter_runs(labels, minimum=minimum, mask_NT=mask)
    np.testing.assert_array_equal(got[~mask], labels[~mask])
    for row, wanted, real in zip(got, labels, mask, strict=True):
        assert row[real].tolist() == slow_filter(wanted[real].tolist(), minimum)
    np.testing.assert_array_equal(filter_runs(got, minimum=minimum, mask_NT=mask), got)  # once is enough
    unmasked = filter_runs(labels, minimum=minimum)
    assert unmasked.tolist() == [slow_filter(row, minimum) for row in labels.tolist()]
    if minimum == 1:
        np.testing.assert_array_equal(unmasked, labels)


def test_filter_runs_input_is_left_alone_and_dtype_is_int64() -> None:
    labels = np.array([[1, 1, 2, 1]], dtype=np.int8)
    got = filter_runs(labels, minimum=2)
    assert got.dtype == np.int64
    assert got.tolist() == [[1, 1, 1, 1]]
    assert labels.tolist() == [[1, 1, 2, 1]]
    assert filter_runs(labels, minimum=1) is not labels


# Accuracy in % after independent flips of a share of the labels (half to background, half to a random class), W = 1 to
# 5: one draw of another implementation.
FLIPS = {
    0.0: (100.0, 99.4, 97.9, 95.0, 91.2),
    0.03: (97.3, 98.4, 97.5, 94.8, 91.1),
    0.06: (94.4, 97.3, 96.8, 94.3, 90.9),
    0.10: (90.6, 95.8, 96.0, 93.7, 90.6),
    0.20: (81.3, 90.4, 91.7, 90.1, 87.9),
}


@pytest.mark.parametrize("rate", FLIPS)
def test_filter_runs_flipped_labels_of_ave_give_the_measured_accuracies(shared: Path, rate: float) -> None:
    """Draws with the same accuracy before the filter as the one measured; it may lie off their mean by their spread."""
    dataset = ave.load(shared / "data" / "annotations" / "ave")
    items = dataset.split("test")
    truth = np.full((len(items), 10), len(dataset.classes))
    for row, item in zip(truth, items, strict=True):
        for event in item.events:
            row[int(event.start_s) : int(event.end_s)] = dataset.classes.index(event.label)
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        random = np.where(rng.random(truth.shape) < 0.5, 28, rng.integers(0, 28, truth.shape))
        flipped = np.where(rng.random(truth.shape) < rate, random, truth)
        if abs(100 * float(np.mean(flipped == truth)) - FLIPS[rate][0]) < 0.15:
            found.append([100 * float(np.mean(filter_runs(flipped, minimum=w) == truth)) for w in range(1, 6)])
        if len(found) == (10 if rate else 1):
            break
    off = np.abs(np.mean(found, axis=0) - FLIPS[rate])
    assert (off <= 0.4 + np.std(found, axis=0)).all(), off
    best = int(np.mean(found, axis=0).argmax()) + 1
    assert best == {0.0: 1, 0.03: 2, 0.06: 2, 0.10: PUBLISHED_MINIMUM, 0.20: PUBLISHED_MINIMUM}[rate]


def test_filter_runs_whole_ave_takes_well_under_a_second() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (4143, 10))  # far more runs than any head's predictions have
    began = time.process_time()
    filter_runs(labels, minimum=3)
    assert time.process_time() - began < 0.5  # 0.02 s measured


@pytest.mark.parametrize("shape", [(0, 10), (3, 0)])
def test_filter_runs_nothing_gives_nothing(shape: tuple[int, int]) -> None:
    assert filter_runs(np.zeros(shape, dtype=np.int64), minimum=3).shape == shape


def test_filter_runs_item_without_real_segments_is_left_alone() -> None:
    labels = np.array([[1, 2, 1], [1, 2, 1]])
    got = filter_runs(labels, minimum=2, mask_NT=np.array([[False] * 3, [True] * 3]))
    assert got.tolist() == [[1, 2, 1], slow_filter([1, 2, 1], 2)]


def test_filter_runs_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="at least 1 segment, got 0"):
        filter_runs(np.zeros((1, 3), dtype=np.int64), minimum=0)
    with pytest.raises(ValueError, match=r"got \(3,\) and none"):
        filter_runs(np.zeros(3, dtype=np.int64), minimum=2)
    with pytest.raises(ValueError, match=r"got \(1, 3\) and \(1, 2\)"):
        filter_runs(np.zeros((1, 3), dtype=np.int64), minimum=2, mask_NT=np.ones((1, 2), dtype=bool))
