"""Distinct frames once, and the means over a segment's frames: against one obvious loop."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from catalog.grid import SegmentGrid
from pipeline.clips import Clips
from pipeline.networks.inference import arithmetic, by_shape, encode_audio, encode_frames, frozen


def make_clips(index: list[list[int]], frames: int, seed: int) -> Clips:
    rng = np.random.default_rng(seed)
    return Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=len(index)),
        first=0,
        frames_FHWC=rng.integers(0, 256, (frames, 4, 6, 3), dtype=np.uint8),
        frame_index_SP=np.array(index, np.int32),
        samples_N=np.zeros(0, np.float32),
        sample_valid_N=np.zeros(0, np.bool_),
        samples_start=0,
        rate_hz=0,
    )


CLIPS = [
    make_clips([[-1, -1, -1], [-1, 0, 2], [0, 2, 3]], 4, 0),
    make_clips([[-1, -1, -1]], 0, 1),
    make_clips([[1, 1, 2], [2, 3, 4]], 6, 2),
]


def describe(frames_BHWC: torch.Tensor) -> torch.Tensor:
    values = frames_BHWC.float()
    return torch.stack([values.mean(dim=(1, 2, 3)), values[:, 0, 0, 0]], dim=1)


def slowly(clips: Clips, keep: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rows = []
    for index_P in clips.frame_index_SP:
        shown = [i for i in index_P if i >= 0]
        if not shown:
            rows.append(np.full((index_P.size, 2) if keep else 2, np.nan))
            continue
        made = [describe(torch.from_numpy(clips.frames_FHWC[i : i + 1]))[0].numpy() for i in shown]
        rows.append(np.stack([made[0]] * (index_P.size - len(shown)) + made) if keep else np.mean(made, axis=0))
    return np.stack(rows)


SEEN = [(clips, np.flatnonzero((clips.frame_index_SP >= 0).any(axis=1))) for clips in CLIPS]
SEGMENTS = [(clips, rows) for clips, rows in SEEN if rows.size]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("batch_frames", [1, 3, 100])
def test_encode_frames_equals_a_loop_over_segments(keep: bool, batch_frames: int) -> None:
    made = encode_frames(SEGMENTS, describe, device="cpu", batch_frames=batch_frames, keep=keep)
    want = np.concatenate([slowly(clips, keep)[rows] for clips, rows in SEGMENTS])
    np.testing.assert_allclose(made, want, rtol=1e-6)


def test_encode_frames_each_used_frame_goes_through_once() -> None:
    seen: list[torch.Tensor] = []

    def forward(frames: torch.Tensor) -> torch.Tensor:
        seen.extend(frames)
        return describe(frames)

    encode_frames(SEGMENTS, forward, device="cpu", batch_frames=2)
    assert len(seen) == 3 + 4  # frames 0, 2, 3 of the first; 1 to 4 of the third; unseen ones never


def test_inputs_of_several_shapes_go_through_with_their_like_and_keep_their_order() -> None:
    sizes: list[tuple[int, ...]] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(x.shape))
        return x.sum(dim=1, keepdim=True)

    inputs = [np.full(length, value, np.float32) for value, length in enumerate((3, 2, 3, 3, 2, 3))]
    made = by_shape(inputs, forward, device="cpu", batch_size=3)
    np.testing.assert_array_equal(made[:, 0], [item.sum() for item in inputs])
    assert sizes == [(2, 2), (3, 3), (1, 3)]


def test_frozen_neither_drops_nor_learns() -> None:
    net = frozen(torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5)).train(), "cpu")
    image = torch.rand(4, 3)
    torch.testing.assert_close(net(image), image, rtol=1e-4, atol=0)  # fresh statistics: 0 and 1
    torch.testing.assert_close(net(image), net(image), rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_arithmetic_takes_no_gradient_and_the_precision_asked_for() -> None:
    net = frozen(torch.nn.Conv2d(3, 4, 3), "cpu", channels_last=True)
    assert net.weight.is_contiguous(memory_format=torch.channels_last)
    image = torch.rand(1, 3, 8, 8)
    with arithmetic("cpu", "float32"):
        assert net(image).dtype == torch.float32
    with arithmetic("cpu", "bfloat16"):
        made = net(image)
    assert made.dtype == torch.bfloat16
    assert not made.requires_grad


def test_audio_is_batched_across_clips_and_each_window_is_heard_alone() -> None:
    rng = np.random.default_rng(3)
    clips = []
    for count, first in ((3, 0), (2, 4)):
        samples = rng.standard_normal(1000 * count).astype(np.float32)
        valid = np.ones(samples.size, np.bool_)
        valid[1000:2000] = False  # the second segment holds no sound
        clips.append(
            Clips(
                video_id="v",
                grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=10),
                first=first,
                frames_FHWC=np.zeros((0, 1, 1, 3), np.uint8),
                frame_index_SP=np.zeros((count, 0), np.int32),
                samples_N=samples,
                sample_valid_N=valid,
                samples_start=1000 * first,
                rate_hz=1000,
            )
        )
    sizes = []

    def forward(sounds: torch.Tensor) -> torch.Tensor:
        sizes.append(len(sounds))
        return torch.stack([sounds.sum(dim=1), sounds[:, 0]], dim=1)

    segments = [(clips[0], np.array([0, 2])), (clips[1], np.array([0]))]
    made = encode_audio(segments, lambda samples_SN, _: 2 * samples_SN, forward, device="cpu", batch_size=2)
    assert sizes == [2, 1]
    windows = [item.samples_N.reshape(-1, 1000)[row] for item, rows in segments for row in rows]
    want = [[2 * window.sum(), 2 * window[0]] for window in windows]
    np.testing.assert_allclose(made, np.array(want, np.float32), rtol=1e-4)
