"""ImageBind-huge: frames, audio and text in one space of 1024 dimensions, as OV-AVEL takes them.

OV-AVEL's sampling is the default: each second's audio, repeated twice to the 2 s that ImageBind takes; each frame as an
image by itself (shown twice, for a clip has two frames). Audio is the first channel at 16 kHz by torchaudio's
resampler. A segment's visual feature is the mean over its frames of unit vectors, not renormalised, as ImageBind takes
the mean over clips. Features keep the published scales: images have norm 1, audio about 20, texts the learnt one.

Which frame of a second OV-AVEL takes is not published; here it is the one in the middle (P = 1), and P may be raised.

`imagebind-10s` is ImageBind's own sampling, as its code does it with a whole file: a segment gets what a file of its
length would get, whatever the window. Video: 5 clips of 2 s, each of its first and last frame (`video.clip_s`), three
crops of each resized without antialiasing (`video.fit=three_crops`), so 15 clips of two frames. Audio: 3 clips of 2 s
(`audio_clip=three`). A feature is the mean over its clips. Frames are found by their own times; the published code
counts them at the mean rate, which is the same where the rate is constant.

bfloat16 against float32 (`avel bench encoders`, random weights of the published size): cosine 0.99997 for a frame and
0.99996 for audio, one segment each.

Source: Girdhar et al., CVPR 2023, github.com/facebookresearch/ImageBind; Zhou et al., CVPR 2025 (OV-AVEL).
The weights are for non-commercial use (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.encoder import EncoderSpec, SizedSettings
from pipeline.weights.asset import CLIP_VOCABULARY, Asset

_CITATION = "Girdhar et al., ImageBind: One Embedding Space To Bind Them All, CVPR 2023"

SPEC = EncoderSpec(
    name="imagebind",
    visual_shape=(1024,),
    audio_shape=(1024,),
    text_width=1024,
    assets=(
        Asset(
            name="imagebind",
            filename="imagebind_huge.pth",
            url="https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
            licence="CC BY-NC-SA 4.0",
            non_commercial=True,
            citation=_CITATION,
        ),
        CLIP_VOCABULARY,
    ),
    licence="CC BY-NC-SA 4.0 (non-commercial)",
    citation=_CITATION,
    rate_hz=16000,
    batch_segments=32,
    device="gpu",
)

PRESETS = (
    Recipe(
        name="imagebind-1s",
        encoder="imagebind",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(frames_per_segment=1, height_px=224, width_px=224),
        audio=AudioSampling(rate_hz=16000, resampler="sinc_hann", channels="first"),
        settings={"audio_clip": "repeat", "size": "published"},
    ),
    Recipe(
        name="imagebind-10s",
        encoder="imagebind",
        grid=GridRule(window_s=Fraction(10), hop_s=Fraction(10)),
        video=VideoSampling(
            frames_per_segment=10,
            clip_s=Fraction(2),
            height_px=672,
            width_px=224,
            fit="three_crops",
            interpolation="bilinear_tensor",
        ),
        audio=AudioSampling(rate_hz=16000, resampler="sinc_hann", channels="first"),
        settings={"audio_clip": "three", "size": "published"},
    ),
)


class Settings(SizedSettings):
    """Settings of the encoder.

    Attributes:
        audio_clip: "repeat" the window's audio to 2 s; "context": 2 s around the segment (with audio.context_s=1/2);
            "three" clips of 2 s, spread over the segment's audio, and the mean of their features, as ImageBind's own
            code does with a file.
    """

    audio_clip: Literal["repeat", "context", "three"]


def check(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be.

    Raises:
        ValueError: names the setting, what it needs and what came.
    """
    if recipe.video is None:
        return
    crops = 3 if recipe.video.fit == "three_crops" else 1
    if (recipe.video.height_px, recipe.video.width_px) != (224 * crops, 224):
        raise ValueError(f"recipe {recipe.name}: ImageBind takes 224 x 224 frames; leave video.height_px and width_px")
    if (crops == 3) != (recipe.video.clip_s is not None):
        raise ValueError(
            f"recipe {recipe.name}: video.fit=three_crops and video.clip_s go together, as in imagebind-10s"
        )
