"""AudioCLIP: CLIP's ResNet-50 for frames, ESResNeXt-fbsp for audio, CLIP's text tower; one space of 1024 dimensions.

Features are the towers' outputs, not normalised (the published `encode_*`). A segment's visual feature is the mean
over its frames (AVE-CLIP section 3.3), or all of them with `keep_frames`, which an audio-guided attention can choose
among.

Frames go through CLIP's transform: bicubic (Pillow) to a short side of 224, centre crop, CLIP's mean and deviation.
With `video.interpolation=bicubic_tensor` it is the demo notebook's: bicubic on the tensor, without antialiasing.

bfloat16 against float32 (`avel bench encoders`, random weights of the published size): least cosine of a segment 0.9999
for frames (one segment of 16 frames) and 0.9995 for audio (6 segments). It depends on the weights, more than in the
other encoders: see bench/random_weights.py.

Source: Guzhov et al., ICASSP 2022, and github.com/AndreyGuzhov/AudioCLIP.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.encoder import EncoderSpec, Shapes, SizedSettings
from pipeline.weights.asset import CLIP_VOCABULARY, Asset

_RELEASE = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1"
_CITATION = "Guzhov et al., AudioCLIP: Extending CLIP to Image, Text and Audio, ICASSP 2022"

SPEC = EncoderSpec(
    name="audioclip",
    visual_shape=(1024,),
    audio_shape=(1024,),
    text_width=1024,
    assets=(
        Asset(
            name="audioclip",
            filename="AudioCLIP-Full-Training.pt",
            url=f"{_RELEASE}/AudioCLIP-Full-Training.pt",
            bytes=537302068,
            sha256="2441d35b353352c8b1bbfb8f7c687f46314c3d2909e940eaf763b8c17f632c44",
            licence="MIT",
            citation=_CITATION,
        ),
        CLIP_VOCABULARY,
    ),
    licence="MIT",
    citation=_CITATION,
    rate_hz=44100,
    batch_segments=32,
    device="gpu",
    trainable=True,
)

PRESETS = (
    Recipe(
        name="audioclip-1s",
        encoder="audioclip",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(frames_per_segment=16, height_px=224, width_px=224),
        audio=AudioSampling(rate_hz=44100, resampler="soxr_hq"),
        settings={"audio_scale": "int16", "keep_frames": False, "size": "published"},
    ),
    Recipe(
        name="audioclip-5s",
        encoder="audioclip",
        grid=GridRule(window_s=Fraction(5), hop_s=Fraction(5)),
        video=VideoSampling(frames_per_segment=16, height_px=224, width_px=224),
        audio=AudioSampling(rate_hz=44100, resampler="soxr_hq"),
        settings={"audio_scale": "int16", "keep_frames": False, "size": "published", "crop_s": 5},
    ),
)


class Settings(SizedSettings):
    """Settings of the encoder.

    Attributes:
        audio_scale: "int16" multiplies audio by 32768, as the published training data sets do; "unit" leaves it in
            [-1, 1], as the demo notebook is believed to. They give different features.
        keep_frames: true stores the P frames of a segment, (P, D), instead of their mean.
        crop_s: seconds of audio that the network takes of each window, by the rule of the published 5 s evaluation
            (`evaluation_crop`); None (audioclip-1s): the whole window.
    """

    audio_scale: Literal["int16", "unit"]
    keep_frames: bool
    crop_s: Annotated[float, Field(gt=0)] | None = None


def shapes(recipe: Recipe) -> Shapes:
    """Of one segment's features; P frames apart with `keep_frames`."""
    keep = recipe.video is not None and Settings.of(recipe).keep_frames
    frames = (recipe.video.frames_per_segment,) if keep and recipe.video is not None else ()
    return (*frames, 1024), (1024,)
