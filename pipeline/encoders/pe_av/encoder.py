"""PE-AV, Meta's Perception Encoder Audio-Visual: pictures, sound and text in one space, from a checkpoint folder of the
transformers library. Any folder of the model type `pe_audio_video` does whose picture tower is a PE core.

Features are the embeddings that the model compares with text, `video_embeds` and `audio_embeds` of what
`PeAudioVideoModel` gives for the segment's frames and samples. Neither is normalised; nor does the model do so before
it compares (dot products, times a scale, plus a bias). The towers of pictures and sound do not see each other: the
model's joint embedding is not used. Text features are [text_video_embeds | text_audio_embeds], one after the other, of
one width each: the first part goes with pictures, the second with sound. The model also compares pictures with sound
directly, by the same two features.

Frames: 16 a second. The published processor of `pe-av-small`, `-base` and `-large` leaves no frame of a clip out, that
of the `-16-frame` variants takes 16, evenly spaced, of a clip of any length, and the library's example asks for 16 of
`pe-av-large` too. 16 of a 1 s window fit either. They are those shown in the middle of each sixteenth of the window;
the published processor's go from a clip's first frame to its last. Pictures are stretched to the tower's square by
Pillow's bilinear filter (antialiased, as torchvision's is) and normalised by the folder's mean and deviation. A slot
before the first picture is left out of the clip.

Sound: the segment's samples from the first real one to the last; what is missing between them is 0. The folder's own
feature extractor lengthens a clip to a whole number of codec steps by reflection. Clips of unlike lengths are not
padded to one another but encoded apart, so there is nothing to mask and no batch companion is seen: the codec's
convolutions have no mask and would run from the padding into the sound.

transformers builds this model's picture tower through the timm library, which needs torchvision; here it is
`networks/pe_core.py`, and only the parts that a recipe uses are read from the folder.

Source: Vyas et al., Pushing the Frontier of Audiovisual Perception with Large-Scale Multimodal Correspondence Learning,
2025 (arXiv 2512.19687).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Features, Modal
from pipeline.clips import Clips
from pipeline.encoder import EncoderSpec, Shapes
from pipeline.preprocess import spectrogram
from pipeline.weights.asset import Asset

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.encoders.pe_av.checkpoint import PictureParts, SoundParts

BATCH_FRAMES, BATCH_CLIPS, BATCH_TEXTS = 32, 8, 64

# A modality's features of some clips, NaN where there are none, and which rows are valid.
Rows = tuple[NDArray[np.float32] | None, NDArray[np.bool_]]

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


@dataclass(frozen=True, kw_only=True)
class PeAv:
    """What a recipe uses of the model; `width` is D of either feature."""

    recipe: Recipe
    device: str
    width: int
    pictures: PictureParts | None
    sounds: SoundParts | None


def shapes(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features: the text tower's width, which both heads lead to."""
    if "pe_av" not in weights:  # first, since the library takes seconds to import
        return SPEC.visual_shape, SPEC.audio_shape
    from pipeline.encoders.pe_av.checkpoint import width_of

    width = width_of(weights["pe_av"])
    return (width,), (width,)


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> PeAv:
    """The towers that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: the folder is damaged, of another model type, or of another picture tower.
        ValueError: pictures or sound of another size, number or rate than the folder's.
    """
    from pipeline.encoders.pe_av.checkpoint import read_picture_parts, read_sound_parts, width_of

    folder = weights["pe_av"]
    return PeAv(
        recipe=recipe,
        device=device,
        width=width_of(folder),
        pictures=read_picture_parts(folder, device, recipe) if recipe.video is not None else None,
        sounds=read_sound_parts(folder, device, recipe) if recipe.audio is not None else None,
    )


def encode(net: PeAv, clips: Sequence[Clips]) -> list[Features]:
    """Features of each of `clips`: pictures together, sounds together."""
    seen = _watch(net, net.pictures, clips) if net.pictures is not None else [_nothing(item) for item in clips]
    heard = _hear(net, net.sounds, clips) if net.sounds is not None else [_nothing(item) for item in clips]
    return [
        Features(visual=Modal.of(visual, visual_S), audio=Modal.of(audio, audio_S))
        for (visual, visual_S), (audio, audio_S) in zip(seen, heard, strict=True)
    ]


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> Any:
    """The text tower with its two heads and its tokenizer, frozen.

    Raises:
        BadCheckpoint: the folder is damaged or of another model type.
    """
    from pipeline.encoders.pe_av.checkpoint import read_text_parts

    return read_text_parts(weights["pe_av"], device), device, recipe.precision


def encode_text(net: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """(K, 2 D) float32: text_video_embeds, then text_audio_embeds, not normalised."""
    import torch

    from pipeline.networks.inference import arithmetic

    parts, device, precision = net
    made = []
    for low in range(0, len(texts), BATCH_TEXTS):
        given = parts.tokenise(list(texts[low : low + BATCH_TEXTS]), padding=True, truncation=True, return_tensors="pt")
        with arithmetic(device, precision):
            first_BD = parts.tower(
                input_ids=given["input_ids"].to(device), attention_mask=given["attention_mask"].to(device)
            ).last_hidden_state[:, 0]
            made.append(torch.cat([head(first_BD).float() for head in parts.heads], dim=-1).cpu().numpy())
    return np.concatenate(made).astype(np.float32)


def _nothing(clips: Clips) -> Rows:
    return None, np.zeros(clips.count, np.bool_)


def _watch(net: PeAv, parts: PictureParts, clips: Sequence[Clips]) -> Sequence[Rows]:
    from pipeline.networks.inference import encode_frames

    seen = encode_frames(
        clips,
        lambda frames: _see(net, parts, frames),
        shape=(parts.tower.config.features,),
        device=net.device,
        batch_frames=BATCH_FRAMES,
        keep=True,
    )
    # By the number of frames shown: (number of the clips, row, frame features).
    alike: dict[int, list[tuple[int, int, NDArray[np.float32]]]] = defaultdict(list)
    for number, (item, (frames_SPD, valid_S)) in enumerate(zip(clips, seen, strict=True)):
        shown_S = (item.frame_index_SP >= 0).sum(axis=1).tolist()
        for row in np.flatnonzero(valid_S).tolist():
            alike[shown_S[row]].append((number, row, frames_SPD[row, -shown_S[row] :]))
    rows = [np.full((item.count, net.width), np.nan, np.float32) for item in clips]
    _fill(rows, alike, lambda given: _forward(net, parts.encoder, parts.head, given))
    return [(features, valid_S) for features, (_, valid_S) in zip(rows, seen, strict=True)]


def _see(net: PeAv, parts: PictureParts, frames_BHWC: Tensor) -> Tensor:
    import torch

    from pipeline.networks.inference import arithmetic

    mean = torch.tensor(parts.looks.mean, device=frames_BHWC.device)
    deviation = torch.tensor(parts.looks.deviation, device=frames_BHWC.device)
    images = ((frames_BHWC.float() * parts.looks.scale - mean) / deviation).permute(0, 3, 1, 2)
    with arithmetic(net.device, net.recipe.precision):
        features: Tensor = parts.tower(images)
    return features


def _hear(net: PeAv, parts: SoundParts, clips: Sequence[Clips]) -> Sequence[Rows]:
    assert net.recipe.audio is not None
    # By length after the extractor: (number of the clips, row, samples).
    alike: dict[int, list[tuple[int, int, NDArray[np.float32]]]] = defaultdict(list)
    rows = [np.full((item.count, net.width), np.nan, np.float32) for item in clips]
    valid = [np.zeros(item.count, np.bool_) for item in clips]
    for number, item in enumerate(clips):
        if not item.samples_N.size:
            continue
        valid[number] = spectrogram.coverage(item, net.recipe.audio.min_coverage)
        samples_SN, real_SN = spectrogram.windows(item)
        for row in np.flatnonzero(valid[number]).tolist():
            real = np.flatnonzero(real_SN[row])
            own = samples_SN[row, real[0] : real[-1] + 1]
            given = parts.listen([own], sampling_rate=item.rate_hz, padding=True, return_tensors="np")["input_values"]
            alike[given.shape[-1]].append((number, row, given[0]))
    _fill(rows, alike, lambda given: _forward(net, parts.encoder, parts.head, given))
    return list(zip(rows, valid, strict=True))


def _fill(
    rows: Sequence[NDArray[np.float32]],
    alike: Mapping[int, Sequence[tuple[int, int, NDArray[np.float32]]]],
    forward: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    """Encodes what is of one length together, and puts each feature into its row."""
    for _, places in sorted(alike.items()):
        for low in range(0, len(places), BATCH_CLIPS):
            here = places[low : low + BATCH_CLIPS]
            made = forward(np.stack([given for _, _, given in here]))
            for (number, row, _), feature in zip(here, made, strict=True):
                rows[number][row] = feature


def _forward(net: PeAv, encoder: Any, head: Any, given: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (B, D) of clips of one length, through an encoder and its head."""
    import torch

    from pipeline.networks.inference import arithmetic

    with arithmetic(net.device, net.recipe.precision):
        made: Tensor = head(encoder(torch.from_numpy(given).to(net.device)).pooler_output)
    features: NDArray[np.float32] = made.float().cpu().numpy()
    return features
