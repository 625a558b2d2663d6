"""ImageBind-huge: pictures, sound and text in one space of 1024 dimensions, as OV-AVEL takes them.

OV-AVEL's sampling is the default: each second's sound, repeated twice to the 2 s that ImageBind hears; each frame as a
picture by itself (shown twice, for a clip has two frames). Sound is the first channel at 16 kHz by torchaudio's
resampler. A segment's picture feature is the mean over its frames of unit vectors, not renormalised, as ImageBind takes
the mean over clips. Features keep the published scales: pictures have norm 1, sounds about 20, texts the learnt one.

Which frame of a second OV-AVEL takes is not told; here it is the one in the middle (P = 1), and P may be raised.

`imagebind-10s` is ImageBind's own sampling, as its code does it with a whole file: a segment gets what a file of its
length would get, whatever the window. Pictures: 5 clips of 2 s, each of its first and last frame (`video.clip_s`),
three crops of each resized without antialiasing (`video.fit=three_crops`), so 15 clips of two frames. Sound: 3 clips of
2 s (`audio_clip=three`). A feature is the mean over its clips. Frames are found by their own times; the published code
counts them at the mean rate, which is the same where the rate is constant.

Settings:
    audio_clip: "repeat" (default) as above; "context" hears 2 s around the second instead (with audio.context_s=1/2);
        "three" hears three clips of 2 s, spread over the segment's sound, and takes the mean of their features, as
        ImageBind's own code does with a file.
    size: "published", or "from-weights": depth and widths are read from the checkpoint (small ones for tests).

bfloat16 against float32 (`avel bench encoders`, random weights of the published size): cosine 0.99997 for a picture and
0.99996 for a sound, one segment each.

Source: Girdhar et al., CVPR 2023, github.com/facebookresearch/ImageBind; Zhou et al., CVPR 2025 (OV-AVEL).
The weights are for non-commercial use (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Features, Modal
from pipeline.clips import Clips
from pipeline.encoder import EncoderSpec, Shapes
from pipeline.weights.asset import CLIP_VOCABULARY, Asset

if TYPE_CHECKING:
    from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
BATCH_FRAMES, BATCH_SOUNDS = 16, 16
BATCH_CLIPS = 5  # of two frames, three views each

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


@dataclass(frozen=True, kw_only=True)
class ImageBind:
    """The towers that a recipe uses."""

    recipe: Recipe
    device: str
    vision: Any
    audio: Any


def shapes(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features."""
    width = 1024
    if recipe.settings.get("size") == "from-weights" and "imagebind" in weights:
        from pipeline.networks.checkpoint import sizes
        from pipeline.networks.imagebind import Config

        tower = functools.partial(Config.of, modality="vision" if recipe.video is not None else "audio")
        width = sizes(tower, _state(weights), where=str(weights["imagebind"])).embedding
    return (width,), (width,)


def check(recipe: Recipe) -> None:
    """Refuse settings that cannot be.

    Raises:
        ValueError: names the setting, what it needs and what came.
    """
    for key, allowed in (("audio_clip", ("repeat", "context", "three")), ("size", ("published", "from-weights"))):
        if recipe.settings.get(key) not in allowed:
            raise ValueError(
                f"recipe {recipe.name}: settings.{key} needs {' or '.join(allowed)}, got {recipe.settings.get(key)!r}"
            )
    if recipe.audio is not None and recipe.audio.rate_hz != 16000:
        raise ValueError(f"recipe {recipe.name}: ImageBind hears 16000 Hz, got {recipe.audio.rate_hz}")
    if recipe.video is None:
        return
    crops = 3 if recipe.video.fit == "three_crops" else 1
    if (recipe.video.height_px, recipe.video.width_px) != (224 * crops, 224):
        raise ValueError(f"recipe {recipe.name}: ImageBind sees 224 x 224 pictures; leave video.height_px and width_px")
    if (crops == 3) != (recipe.video.clip_s is not None):
        raise ValueError(
            f"recipe {recipe.name}: video.fit=three_crops and video.clip_s go together, as in imagebind-10s"
        )


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> ImageBind:
    """The towers that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: the file is damaged or not ImageBind's.
        ValueError: a setting that cannot be, or a checkpoint of other sizes than the published.
    """
    state = _state(weights)
    where = str(weights["imagebind"])
    return ImageBind(
        recipe=recipe,
        device=device,
        vision=None if recipe.video is None else _tower(state, "vision", recipe, where, device),
        audio=None if recipe.audio is None else _tower(state, "audio", recipe, where, device),
    )


def encode(net: ImageBind, clips: Sequence[Clips]) -> list[Features]:
    """Features of each of `clips`: pictures together, sounds together."""
    seen: list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]]
    seen = [(None, np.zeros(item.count, np.bool_)) for item in clips]
    if net.vision is not None and net.recipe.video is not None and net.recipe.video.clip_s is not None:
        seen = [_watch(net, item) for item in clips]
    elif net.vision is not None:
        from pipeline.networks.inference import encode_frames

        width = net.vision.config.embedding
        seen = list(
            encode_frames(
                clips,
                lambda frames: _forward(net, net.vision, normalised(frames)),
                shape=(width,),
                device=net.device,
                batch_frames=BATCH_FRAMES,
            )
        )
    return [
        Features(visual=Modal.of(visual, visual_S), audio=Modal.of(heard, heard_S))
        for (visual, visual_S), (heard, heard_S) in zip(seen, _hear(net, clips), strict=True)
    ]


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> Any:
    """Tokenizer and text tower, frozen.

    Raises:
        BadCheckpoint, ValueError: as `load`; or the vocabulary is not CLIP's.
    """
    from pipeline.preprocess.tokenizers import Tokeniser

    tower = _tower(_state(weights), "text", recipe, str(weights["imagebind"]), device)
    return Tokeniser(weights["bpe"], too_long="cut"), tower, recipe.precision


def encode_text(net: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """(K, 1024) float32: unit vectors times the learnt text scale; texts of more than 75 tokens are cut."""
    import torch

    from pipeline.networks.inference import arithmetic

    tokenise, tower, precision = net
    device = next(tower.parameters()).device
    with arithmetic(device.type, precision):
        made = tower(torch.from_numpy(tokenise(texts)).to(device))
    return np.asarray(made.float().cpu().numpy(), np.float32)


def normalised(frames_BHWC: Tensor) -> Tensor:
    """RGB in units of 1/255, (B, H, W, 3), to float32 (B, 3, H, W) with CLIP's mean and deviation."""
    from pipeline.networks import inference

    return inference.normalised(frames_BHWC, MEAN, DEVIATION)


def views(frames_FHWC: NDArray[np.uint8 | np.float32], pairs_C2: NDArray[np.int32], device: str = "cpu") -> Tensor:
    """The three views of clips of two frames, float32 (C, 3, 3, 2, 224, 224): clip, crop, colour, frame.

    Args:
        frames_FHWC: (F, 672, 224, 3) RGB in units of 1/255, three crops one below the other.
        pairs_C2: which frames a clip has.
    """
    import torch

    frames = torch.from_numpy(frames_FHWC[pairs_C2.reshape(-1)]).to(device)
    side = frames.shape[2]
    pictures = normalised(frames.reshape(-1, side, side, 3)).reshape(len(pairs_C2), 2, 3, 3, side, side)
    return pictures.permute(0, 2, 3, 1, 4, 5)


def mel_pictures(samples_SN: NDArray[np.float32], real_SN: NDArray[np.bool_], kind: str) -> NDArray[np.float32]:
    """The mel pictures of each window of sound, (n, K, 1, 128, 204) float32: K = 3 by "three", else 1.

    Args:
        samples_SN, real_SN: as `spectrogram.windows` gives them.
        kind: the setting `audio_clip`.
    """
    from pipeline.encoders.imagebind.fbank import clip_pictures, mel_picture

    pictures = []
    for samples_N, real_N in zip(samples_SN, real_SN, strict=True):
        if kind == "three":
            # To where the sound ends: a file shorter than the window is heard as a file of its length.
            made = clip_pictures(samples_N[: np.flatnonzero(real_N)[-1] + 1])
        else:
            made = mel_picture(np.tile(samples_N, 2) if kind == "repeat" else samples_N)[None]
        pictures.append(made)
    return np.stack(pictures)[:, :, None]


def _hear(net: ImageBind, clips: Sequence[Clips]) -> list[tuple[NDArray[np.float32] | None, NDArray[np.bool_]]]:
    if net.audio is None:
        return [(None, np.zeros(item.count, np.bool_)) for item in clips]
    from pipeline.networks.inference import encode_sounds

    assert net.recipe.audio is not None
    kind = str(net.recipe.settings["audio_clip"])
    return list(
        encode_sounds(
            clips,
            lambda samples_SN, real_SN: mel_pictures(samples_SN, real_SN, kind),
            lambda pictures: _mean_of_clips(net, net.audio, pictures, BATCH_SOUNDS),
            width=net.audio.config.embedding,
            min_coverage=net.recipe.audio.min_coverage,
            device=net.device,
            batch_sounds=BATCH_SOUNDS,
            context_s=net.recipe.audio.context_s if kind == "context" else Fraction(0),
        )
    )


def _watch(net: ImageBind, clips: Clips) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The mean over each segment's clips and their three views."""
    pairs_SK2 = clips.frame_index_SP.reshape(clips.count, -1, 2)
    # A clip that begins before the first picture begins with the last it has; one that ends before it is not seen.
    pairs_SK2 = np.where(pairs_SK2 < 0, pairs_SK2[:, :, 1:], pairs_SK2)
    seen_SK = pairs_SK2[:, :, 1] >= 0
    rows = np.full((clips.count, net.vision.config.embedding), np.nan, np.float32)
    if seen_SK.any():
        # The clips of a segment that is no longer than one are the same: encoded once.
        distinct_C2, place = np.unique(pairs_SK2[seen_SK], axis=0, return_inverse=True)
        batches = [distinct_C2[low : low + BATCH_CLIPS] for low in range(0, len(distinct_C2), BATCH_CLIPS)]
        made_CD = np.concatenate([_mean_of_views(net, clips.frames_FHWC, batch_C2) for batch_C2 in batches])
        place_SK = np.zeros(seen_SK.shape, np.intp)
        place_SK[seen_SK] = place.reshape(-1)
        for row in np.flatnonzero(seen_SK.any(axis=1)):
            rows[row] = made_CD[place_SK[row, seen_SK[row]]].mean(axis=0, dtype=np.float32)
    return rows, np.asarray(seen_SK.any(axis=1))


def _mean_of_views(
    net: ImageBind, frames_FHWC: NDArray[np.uint8 | np.float32], pairs_C2: NDArray[np.int32]
) -> NDArray[np.float32]:
    made = _mean_of_clips(net, net.vision, views(frames_FHWC, pairs_C2, net.device), BATCH_FRAMES)
    return np.asarray(made.cpu().numpy(), np.float32)


def _mean_of_clips(net: ImageBind, tower: Any, x: Tensor, batch: int) -> Tensor:
    """(n, D): the mean over each row's K clips (n, K, ...) of their scaled unit vectors, not renormalised."""
    import torch

    flat = x.flatten(0, 1)
    parts = [_forward(net, tower, flat[low : low + batch]).float() for low in range(0, len(flat), batch)]
    return torch.cat(parts).reshape(*x.shape[:2], -1).mean(dim=1)


def _forward(net: ImageBind, tower: Any, x: Tensor) -> Tensor:
    from pipeline.networks.inference import arithmetic

    with arithmetic(net.device, net.recipe.precision):
        made: Tensor = tower(x)
    return made


def _state(weights: Mapping[str, Path]) -> dict[str, Tensor]:
    from pipeline.networks.checkpoint import read_state

    return read_state(weights["imagebind"])


def _tower(
    state: Mapping[str, Tensor], modality: Literal["vision", "audio", "text"], recipe: Recipe, where: str, device: str
) -> Any:
    import torch

    from pipeline.networks.checkpoint import fill, sizes
    from pipeline.networks.imagebind import Config, Tower, belongs
    from pipeline.networks.inference import frozen

    own = {key: tensor for key, tensor in state.items() if belongs(key, modality)}
    config = sizes(functools.partial(Config.of, modality=modality), own, where=where)
    if recipe.settings["size"] == "published" and config != Config.published(modality):
        raise ValueError(
            f"{where}, {modality} tower: needs the published sizes {Config.published(modality)}, got {config}; "
            "if that is meant, --set settings.size=from-weights"
        )
    with torch.device("meta"):
        tower = Tower(config)
    fill(tower, own, where=f"{where}, {modality} tower", infinite=("text.mask",))
    return frozen(tower, device)
