"""Tensor resizing against torch's own, whole pictures and boxes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catalog.recipe import VideoSampling
from pipeline.decode.frames import Geometry, resize
from pipeline.decode.tensor_resize import tensor_resize

# torch places outputs in float32: 512 pixels along, up to 3e-5 of a pixel beside, times a slope of up to 2 x 255.
ATOL = 0.016
SIZES = [(48, 64), (97, 31), (8, 512), (24, 24), (13, 11)]


def picture(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tensor_resize_of_a_whole_picture_equals_torch(kind: str, height: int, width: int) -> None:
    frame = picture(height, width)
    got = tensor_resize(frame, (0, 0, width, height), height_px=24, width_px=40, kind=kind)
    tensor = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    want = torch.nn.functional.interpolate(tensor, (24, 40), mode=kind, align_corners=False, antialias=False)
    np.testing.assert_allclose(got, want[0].permute(1, 2, 0).numpy(), atol=ATOL)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_frames_tensor_crop_equals_torch_resized_and_cut(kind: str, height: int, width: int) -> None:
    frame = picture(height, width)
    sampling = VideoSampling(
        frames_per_segment=1,
        height_px=24,
        width_px=24,
        short_side_px=32,
        interpolation=f"{kind}_tensor",  # type: ignore[arg-type]  # parametrised text
    )
    got = resize(frame, Geometry.of(sampling))
    size = (32, int(32 * width / height)) if height < width else (int(32 * height / width), 32)
    tensor = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    whole = torch.nn.functional.interpolate(tensor, size, mode=kind, align_corners=False)[0].permute(1, 2, 0).numpy()
    top, left = round((size[0] - 24) / 2), round((size[1] - 24) / 2)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, whole[top : top + 24, left : left + 24], atol=ATOL)


def test_tensor_resize_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="bilinear or bicubic, got 'area'"):
        tensor_resize(picture(4, 4), (0, 0, 4, 4), height_px=2, width_px=2, kind="area")
