"""ONE-PEACE as UniAV, CCNet and LoCo take it on UnAV-100: 1536 numbers for video and for audio, four times a second.

`onepeace-unav`: windows of 1 s every 0.25 s, whole ones only, so T = floor((16 d - 16) / 4) + 1 for d seconds.

Video: 16 frames a window, through the tower fine-tuned on Kinetics-400; the mean over the frames of their class tokens,
which is its classifier's input. Frames are those on screen in the middle of each sixteenth of a second, which is what
ffmpeg's `fps=16` filter (it rounds to the nearest) makes of a film; a slot before the first frame is given the first.
The published transform: short side to 256 by OpenCV's bilinear filter (two neighbours an axis, whatever the scale,
hence `bilinear_tensor`; to whole numbers), the centre 256, the published mean and deviation. The decoder leaves frames
whole, because the published centre begins at a position rounded down, and the decoder's own not. (The published code
rounds the long side to the nearest, the decoder down: a quarter of a per cent here and there.)

Audio: one channel at 16 kHz by librosa (soxr_hq). A window is treated as the published code treats a file: minus its
mean, divided by its deviation, and repeated to a second where it is shorter. Samples missing at either end are no part
of it; those missing in between are 0. (The published code may have normalised whole files before windows were cut:
UniAV does not say. A window's feature here depends on the window alone.)

Work shared by windows that overlap: each distinct frame becomes patches once (a quarter of the patch work at this
stride, which is 2.6 of about 1,070 GFLOP a frame); windows of the very same frames, as in a still video, are encoded
once. No more is exact: from the first layer on a frame's tokens depend on its position in the window and on the
window's other frames. Audio windows share nothing: each has its own mean and deviation, the norms behind the
convolutions are not indifferent to a shift, and the stride of 4,000 samples is 12.5 of the convolutions' 320.

Text: the text branch, unit vectors in the space of "unit" audio (not of the video tower's features, which fine-tuning
for classes has led elsewhere). UniAV's prompt is "An audio visual event of {}.".

The video tower takes about 68 TFLOP for each second of film: it is meant for a GPU. bfloat16 against float32 (two
layers of the published width, seeded weights): cosine 0.99997 for a clip of four frames, 0.99995 for audio and text.

Source: Wang et al., ONE-PEACE, 2023 (arXiv 2305.11172); Geng et al., UniAV, 2024 (arXiv 2404.03179), README.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.encoder import EncoderSpec, SizedSettings
from pipeline.weights.asset import Asset

RATE_HZ = 16000
LONGEST_S = 15  # of audio

_CITATION = "Wang et al., ONE-PEACE: Exploring One General Representation Model Toward Unlimited Modalities, 2023"
_FILES = "https://one-peace-shanghai.oss-accelerate.aliyuncs.com"
_WORDS = "https://github.com/OFA-Sys/ONE-PEACE/raw/main/one_peace/utils/BPE"

SPEC = EncoderSpec(
    name="one_peace",
    visual_shape=(1536,),
    audio_shape=(1536,),
    text_width=1536,
    assets=(
        Asset(
            name="one_peace_k400",
            filename="onepeace_video_k400.pth",
            url=f"{_FILES}/one_peace_checkpoints/onepeace_video_k400.pth",
            licence="Apache-2.0",
            citation=_CITATION,
        ),
        Asset(
            name="one_peace",
            filename="one-peace.pt",
            url=f"{_FILES}/one-peace.pt",
            licence="Apache-2.0",
            citation=_CITATION,
        ),
        Asset(
            name="bpe_encoder",
            filename="encoder.json",
            url=f"{_WORDS}/encoder.json",
            bytes=1042301,
            sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
            licence="MIT (GPT-2)",
            citation=_CITATION,
            use="text",
        ),
        Asset(
            name="bpe_merges",
            filename="vocab.bpe",
            url=f"{_WORDS}/vocab.bpe",
            bytes=456318,
            sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            licence="MIT (GPT-2)",
            citation=_CITATION,
            use="text",
        ),
        Asset(
            name="bpe_dictionary",
            filename="dict.txt",
            url=f"{_WORDS}/dict.txt",
            bytes=603290,
            sha256="2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6",
            licence="Apache-2.0",
            citation=_CITATION,
            use="text",
        ),
    ),
    licence="Apache-2.0",
    citation=_CITATION,
    rate_hz=RATE_HZ,
    batch_segments=16,
    device="gpu",
)

PRESETS = (
    Recipe(
        name="onepeace-unav",
        encoder="one_peace",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1, 4), tail="drop"),
        video=VideoSampling(
            frames_per_segment=16, height_px=256, width_px=256, fit="whole", interpolation="bilinear_tensor"
        ),
        audio=AudioSampling(rate_hz=RATE_HZ, resampler="soxr_hq"),
        settings={"audio_feature": "unit", "size": "published"},
    ),
)


class Settings(SizedSettings):
    """Settings of the encoder.

    Attributes:
        audio_feature: "unit": projected into the space shared with text, and of length 1; "projected": the same without
            the last step; "class_token": the transformer's class token after its norm, before `audio_proj`. UniAV does
            not say which it took. "unit" is what `extract_audio_features` of the published interface gives, and the
            text features that UniAV publishes are unit vectors, as that interface's are.
    """

    audio_feature: Literal["unit", "projected", "class_token"]


def check(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be.

    Raises:
        ValueError: names the setting, what it needs and what came.
    """
    where = f"recipe {recipe.name}:"
    settings = Settings.of(recipe)
    if recipe.audio is not None:
        if recipe.audio.context_s:
            raise ValueError(f"{where} ONE-PEACE takes windows without context; leave audio.context_s at 0")
        if recipe.grid.window_s > LONGEST_S:
            raise ValueError(
                f"{where} ONE-PEACE takes {LONGEST_S} s at most, got windows of {float(recipe.grid.window_s):g} s"
            )
    if recipe.video is None:
        return
    size = (recipe.video.height_px, recipe.video.width_px)
    if settings.size == "published" and size != (256, 256):
        raise ValueError(f"{where} ONE-PEACE takes 256 x 256 frames, got {size[0]} x {size[1]}")
    if recipe.video.fit == "three_crops":
        raise ValueError(f"{where} ONE-PEACE takes the centre; video.fit needs whole, crop or stretch, got three_crops")
    if recipe.video.frames_after:
        raise ValueError(f"{where} ONE-PEACE takes its window alone; leave video.frames_after at 0")
    if recipe.video.clip_s is not None:
        raise ValueError(f"{where} ONE-PEACE's frames are evenly spaced; leave video.clip_s out")
