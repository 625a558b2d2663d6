"""PE-AV, Meta's Perception Encoder Audio-Visual: video, audio and text in one space, from a checkpoint folder of the
transformers library. Any folder of the model type `pe_audio_video` does whose image tower is a PE core.

Features are the embeddings that the model compares with text, `video_embeds` and `audio_embeds` of what
`PeAudioVideoModel` gives for the segment's frames and samples. Neither is normalised; nor does the model do so before
it compares (dot products, times a scale, plus a bias). The towers of video and audio do not see each other: the model's
joint embedding is not used. Text features are [text_video_embeds | text_audio_embeds], one after the other, of one
width each: the first part goes with video, the second with audio. The model also compares video with audio directly, by
the same two features.

Frames: 16 a second. The published processor of `pe-av-small`, `-base` and `-large` leaves no frame of a clip out, that
of the `-16-frame` variants takes 16, evenly spaced, of a clip of any length, and the library's example asks for 16 of
`pe-av-large` too. 16 of a 1 s window fit either. They are those shown in the middle of each sixteenth of the window;
the published processor's go from a clip's first frame to its last. Frames are stretched to the tower's square by
Pillow's bilinear filter (antialiased, as torchvision's is) and normalised by the folder's mean and deviation. A slot
before the first frame is left out of the clip.

Audio: the segment's samples from the first real one to the last; those missing in between are 0. The folder's own
feature extractor lengthens a clip to a whole number of codec steps by reflection. Clips of unlike lengths are not
padded to one another but encoded apart, so there is nothing to mask and no batch companion is seen: the codec's
convolutions have no mask and would run from the padding into the audio.

transformers builds this model's image tower through the timm library, which needs torchvision; here it is
`networks/pe_core.py`, and only the parts that a recipe uses are read from the folder.

Source: Vyas et al., Pushing the Frontier of Audiovisual Perception with Large-Scale Multimodal Correspondence Learning,
2025 (arXiv 2512.19687).
"""

from __future__ import annotations

from fractions import Fraction

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.encoder import EncoderSpec
from pipeline.weights.asset import Asset

CITATION = (
    "Vyas et al., Pushing the Frontier of Audiovisual Perception with Large-Scale Multimodal Correspondence Learning, "
    "2025 (arXiv 2512.19687)"
)

SPEC = EncoderSpec(
    name="pe_av",
    visual_shape=(1024,),
    audio_shape=(1024,),
    text_width=2048,
    assets=(
        Asset(
            name="pe_av",
            filename="pe-av-large",
            url="https://huggingface.co/facebook/pe-av-large",
            licence="Apache-2.0",
            citation=CITATION,
            is_folder=True,
        ),
    ),
    licence="Apache-2.0",
    citation=CITATION,
    batch_segments=16,
    device="gpu",
)

PRESETS = (
    Recipe(
        name="pe-av-1s",
        encoder="pe_av",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(
            frames_per_segment=16, height_px=336, width_px=336, fit="stretch", interpolation="bilinear"
        ),
        audio=AudioSampling(rate_hz=48000, resampler="soxr_hq"),
    ),
)
