"""CLIP for frames and CLAP for audio, from checkpoint folders of the transformers library: the pair that OV-AVEL
compares with. Any folders of the model types `clip` and `clap` do; widths come from them.

Features are the projected embeddings as `get_image_features` and `get_audio_features` give them, not normalised (CLAP's
own are unit vectors). A segment's visual feature is the mean over its frames. A window of audio is shorter than the
10 s that CLAP takes; it is repeated as the checkpoint's feature extractor says. The two spaces differ, so text features
are [CLIP's | CLAP's], one after the other: the first part goes with frames, the second with audio.

bfloat16 against float32 (`avel bench encoders`, random weights of the published size): cosine 0.99998 for frames (one
segment of 8 frames), least cosine 0.99995 for audio (32 segments).

Source: Radford et al., ICML 2021; Wu et al., ICASSP 2023.
"""

from __future__ import annotations

from fractions import Fraction

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.encoder import EncoderSpec
from pipeline.weights.asset import Asset

SPEC = EncoderSpec(
    name="clip_clap",
    visual_shape=(512,),
    audio_shape=(512,),
    text_width=1024,
    assets=(
        Asset(
            name="clip",
            filename="clip-vit-base-patch32",
            url="https://huggingface.co/openai/clip-vit-base-patch32",
            licence="MIT",
            citation="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021",
            is_folder=True,
        ),
        Asset(
            name="clap",
            filename="clap-htsat-unfused",
            url="https://huggingface.co/laion/clap-htsat-unfused",
            licence="Apache-2.0",
            citation="Wu et al., Large-Scale Contrastive Language-Audio Pretraining, ICASSP 2023",
            is_folder=True,
        ),
    ),
    licence="MIT and Apache-2.0",
    citation="Radford et al., ICML 2021; Wu et al., ICASSP 2023",
    batch_segments=32,
    device="gpu",
)

PRESETS = (
    Recipe(
        name="clip-clap-1s",
        encoder="clip_clap",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(frames_per_segment=8, height_px=224, width_px=224),
        audio=AudioSampling(rate_hz=48000, resampler="soxr_hq"),
    ),
)
