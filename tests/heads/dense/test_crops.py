"""Crops of videos for dense training: where they may lie, what becomes of events."""

from __future__ import annotations

import numpy as np

from heads.dense.crops import crop, draw_crops


def test_crops_lie_inside_and_are_long_enough() -> None:
    rng = np.random.default_rng(0)
    lengths_B = np.array([1, 7, 100, 240])
    times_BE2 = np.tile(np.array([[[0.0, 1.0]]], dtype=np.float32), (4, 1, 1))
    labels_BE = np.zeros((4, 1), dtype=np.int64)
    seen = set()
    for _ in range(200):
        starts_B, kept_B = draw_crops(rng, lengths_B, times_BE2, labels_BE, crop_share=0.9, max_segments=200)
        assert (starts_B >= 0).all()
        assert (starts_B + kept_B <= lengths_B).all()
        assert kept_B[[0, 1, 3]].tolist() == [1, 7, 200]
        seen.add(int(kept_B[2]))
    assert seen == set(range(90, 101))


def test_a_crop_keeps_half_of_an_event_wherever_one_fits() -> None:
    rng = np.random.default_rng(1)
    lengths_B = np.full(300, 100)
    times_BE2 = np.tile(np.array([[[0.0, 8.0], [40.0, 99.0]]], dtype=np.float32), (300, 1, 1))
    labels_BE = np.tile(np.array([[0, -1]]), (300, 1))  # the second is padding
    starts_B, kept_B = draw_crops(rng, lengths_B, times_BE2, labels_BE, crop_share=0.3, max_segments=40)
    shared_B = np.minimum(8.0, starts_B + kept_B) - np.maximum(0.0, starts_B)
    assert (shared_B >= 4).all()
    assert len(set(starts_B.tolist())) == 5  # 0 to 4, all of them


def test_without_events_a_stretch_is_drawn_all_the_same() -> None:
    starts_B, kept_B = draw_crops(
        np.random.default_rng(2),
        np.array([50]),
        np.zeros((1, 1, 2), dtype=np.float32),
        np.array([[-1]]),
        crop_share=0.5,
        max_segments=None,
    )
    assert 25 <= kept_B[0] <= 50
    assert 0 <= starts_B[0] <= 50 - kept_B[0]


def test_events_are_cut_shifted_or_left_out() -> None:
    times_BE2 = np.array([[[-1.5, 8.0], [4.0, 20.0], [18.0, 22.0], [0.0, 0.0]]] * 2, dtype=np.float32)
    labels_BE = np.array([[3, 1, 2, -1]] * 2)
    # A stretch [3, 13) of 30 segments: 5 of 9.5 lie in it, 9 of 16, none of the third. And the whole of another item.
    cut_BE2, kept_BE = crop(times_BE2, labels_BE, np.array([3, 0]), np.array([10, 30]), np.array([30, 30]))
    assert kept_BE.tolist() == [[3, 1, -1, -1], [3, 1, 2, -1]]
    assert cut_BE2[0, :2].tolist() == [[0.0, 5.0], [1.0, 10.0]]
    assert cut_BE2[1].tolist() == times_BE2[1].tolist()
