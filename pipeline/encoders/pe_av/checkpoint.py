"""A PE-AV checkpoint folder, part by part: towers of video, audio and text, and the inputs they need.

The transformers library builds the whole model at once, and its image tower through the timm library, which needs
torchvision. Here the image tower is `networks/pe_core.py`; the encoders of clips and the heads are the library's own
classes; and a part that is not asked for is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
import transformers
from torch import Tensor, nn
from transformers.models.pe_audio.modeling_pe_audio import PeAudioContrastiveHead, PeAudioEncoder
from transformers.models.pe_video.modeling_pe_video import PeVideoContrastiveHead, PeVideoEncoder

from catalog.recipe import Recipe
from pipeline.networks.checkpoint import BadCheckpoint, fill, sizes, with_prefix
from pipeline.networks.inference import frozen
from pipeline.networks.pe_core import Architecture, Config, PeCore, architecture_of
from pipeline.networks.transformers_folder import load_part, read_config, read_json, read_tensors

MODEL_TYPE = "pe_audio_video"

# Pillow's numbers of filters, as processor configurations have them.
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "area"}

# Where the image tower stands in the encoder of video, and the library's default for it.
_TOWER = "embedder.vision_model."
_TOWER_NAME = "vit_pe_core_large_patch14_336"

Part = TypeVar("Part", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Normalisation of frames: (x * scale - mean) / deviation of values 0..255."""

    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class VideoParts:
    """Frames to features, a clip of those to one (`pooler_output`), and that to the common space."""

    processor: Processor
    tower: PeCore
    encoder: nn.Module
    head: nn.Module


@dataclass(frozen=True, kw_only=True)
class AudioParts:
    """The library's feature extractor, samples to one feature (`pooler_output`), and that to the common space."""

    extractor: Any
    encoder: nn.Module
    head: nn.Module


@dataclass(frozen=True, kw_only=True)
class TextParts:
    """The library's tokenizer, the text tower, and the heads towards video and towards audio."""

    tokenise: Any
    tower: nn.Module
    heads: tuple[nn.Module, nn.Module]


def width_of(folder: Path) -> int:
    """D: of the text tower, which all heads lead to.

    Raises:
        BadCheckpoint: the folder is of another model type, or its configuration is damaged.
    """
    width = _inner(read_config(folder, MODEL_TYPE), "text_config", folder).get("hidden_size", 1024)
    if not isinstance(width, int) or width < 1:
        raise BadCheckpoint(f"{folder}/config.json: text_config.hidden_size needs a number, got {str(width)[:80]}")
    return width


def read_video_parts(folder: Path, device: str, recipe: Recipe) -> VideoParts:
    """The video tower, frozen.

    Raises:
        BadCheckpoint: the folder is damaged, of another model type, or its image tower is no PE core.
        ValueError: the recipe prepares frames otherwise than the folder's processor.
    """
    processor = _processor(folder, recipe)
    state = _state(folder, "video_model.video_encoder.", "audio_video_encoder.embedder.video_encoder.")
    images = with_prefix(state, _TOWER)
    images = with_prefix(images, "timm_model.") or images
    rest = {key: tensor for key, tensor in state.items() if not key.startswith(_TOWER)}
    architecture = _architecture(folder)
    where = f"{folder}, image tower"
    core = sizes(lambda tensors: Config.of(tensors, architecture), images, where=where)
    assert recipe.video is not None
    if core.side_px != recipe.video.height_px:
        raise BadCheckpoint(
            f"{where}: its tensors are for frames of {core.side_px} px, the folder's processor makes "
            f"{recipe.video.height_px} px"
        )
    config = _config(folder, core.features).audio_video_config.video_config

    def clip_encoder() -> nn.Module:
        encoder: nn.Module = PeVideoEncoder(config)
        encoder.get_submodule("embedder").vision_model = _Given()
        return encoder

    return VideoParts(
        processor=processor,
        tower=_part(lambda: PeCore(core), images, where, device),
        encoder=_part(clip_encoder, rest, f"{folder}, encoder of video", device),
        head=_part(
            lambda: PeVideoContrastiveHead(config.hidden_size, width_of(folder)),
            _state(folder, "video_model.video_head."),
            f"{folder}, head of video",
            device,
        ),
    )


def read_audio_parts(folder: Path, device: str, recipe: Recipe) -> AudioParts:
    """The audio tower, frozen.

    Raises:
        BadCheckpoint: the folder is damaged or of another model type.
        ValueError: the recipe's audio is of another rate than the folder's.
    """
    assert recipe.audio is not None
    config = _config(folder).audio_video_config.audio_config
    extractor = load_part("PeAudioFeatureExtractor", folder)
    if extractor.sampling_rate != recipe.audio.rate_hz:
        raise ValueError(
            f"recipe {recipe.name} has audio of {recipe.audio.rate_hz} Hz, {folder} takes "
            f"{extractor.sampling_rate} Hz; --set audio.rate_hz={extractor.sampling_rate}"
        )
    step = config.dac_config.hop_length
    if extractor.feature_size != 1 or extractor.hop_length != step:
        raise BadCheckpoint(
            f"{folder}: needs a feature extractor of mono audio in the codec's steps of {step} samples, "
            f"got {extractor.feature_size} channels and steps of {extractor.hop_length}"
        )
    return AudioParts(
        extractor=extractor,
        encoder=_part(
            lambda: PeAudioEncoder(config),
            _state(folder, "audio_model.audio_encoder.", "audio_video_encoder.embedder.audio_encoder."),
            f"{folder}, encoder of audio",
            device,
        ),
        head=_part(
            lambda: PeAudioContrastiveHead(config.hidden_size, width_of(folder)),
            _state(folder, "audio_model.audio_head."),
            f"{folder}, head of audio",
            device,
        ),
    )


def read_text_parts(folder: Path, device: str) -> TextParts:
    """The text tower, frozen.

    Raises:
        BadCheckpoint: the folder is damaged or of another model type.
    """
    width = width_of(folder)
    config = _config(folder).text_config
    model: Any = transformers.AutoModel  # its functions have no types
    state = _state(folder, "text_model.", "audio_model.text_model.", "video_model.text_model.")
    where = f"{folder}, head of text"
    video = _state(folder, "video_model.text_video_head.")
    audio = _state(folder, "audio_model.text_audio_head.")
    return TextParts(
        tokenise=load_part("AutoTokenizer", folder),
        tower=_part(lambda: model.from_config(config), state, f"{folder}, text tower", device),
        heads=(
            _part(lambda: PeVideoContrastiveHead(width, width), video, where, device),
            _part(lambda: PeAudioContrastiveHead(width, width), audio, where, device),
        ),
    )


class _Given(nn.Module):
    """In the image tower's place: passes on features made before, so that a frame of several clips is encoded once."""

    def forward(self, features: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=features)


def _config(folder: Path, frame_features: int = 1) -> Any:
    """The library's configuration, with a stand-in for the image tower's, which only timm could build."""
    given = read_config(folder, MODEL_TYPE)
    both = _inner(given, "audio_video_config", folder)
    video = _inner(both, "video_config", folder)
    try:
        stand_in = transformers.ViTConfig(hidden_size=4, num_hidden_layers=0, num_attention_heads=1)
        stand_in.num_labels = frame_features
        both = {**both, "video_config": {**video, "vision_config": stand_in}}
        return transformers.PeAudioVideoConfig(text_config=given.get("text_config"), audio_video_config=both)
    except Exception as error:  # what the library raises on a bad configuration differs from field to field
        raise BadCheckpoint(f"{folder}/config.json: not a configuration of PE-AV ({str(error)[:200]})") from error


def _architecture(folder: Path) -> Architecture:
    held = read_config(folder, MODEL_TYPE)
    for key in ("audio_video_config", "video_config", "vision_config"):
        held = _inner(held, key, folder)
    try:
        return architecture_of(str(held.get("architecture", _TOWER_NAME)), _inner(held, "model_args", folder))
    except ValueError as error:
        raise BadCheckpoint(f"{folder}: {error}") from error


def _inner(held: Mapping[str, Any], key: str, folder: Path) -> dict[str, Any]:
    """An object inside a configuration; what is left out or null is the library's default throughout."""
    value = held.get(key)
    if value is not None and not isinstance(value, dict):
        raise BadCheckpoint(f"{folder}/config.json: {key} needs an object, got {str(value)[:80]}")
    return value or {}


def _processor(folder: Path, recipe: Recipe) -> Processor:
    """The folder's normalisation of frames, after a check that the recipe's decoder resizes as its processor does."""
    where, held = _video_processor(folder)
    for key, supported in (
        ("do_resize", True),
        ("do_rescale", True),
        ("do_normalize", True),
        ("do_center_crop", False),
    ):
        if held.get(key) is (not supported):
            raise BadCheckpoint(f"{where}: {key}={not supported} is not supported")
    size, video = held.get("size"), recipe.video
    assert video is not None
    if not isinstance(size, dict) or not all(isinstance(size.get(side), int) for side in ("height", "width")):
        raise BadCheckpoint(f"{where}: size needs a height and a width, got {str(size)[:80]}")
    wanted: dict[str, object] = {"height_px": size["height"], "width_px": size["width"], "fit": "stretch"}
    number = held.get("resample", 2)  # bilinear is the class's own
    wanted["interpolation"] = FILTERS.get(number, f"Pillow's filter {number}")
    if held.get("do_sample_frames") and held.get("num_frames"):
        wanted["frames_per_segment"] = held["num_frames"]
    for name, value in wanted.items():
        if getattr(video, name) != value:
            raise ValueError(
                f"recipe {recipe.name} has video.{name}={getattr(video, name)}, {folder} takes {value}; "
                + " ".join(f"--set video.{field}={setting}" for field, setting in wanted.items())
            )
    scale = held.get("rescale_factor", 1 / 255)
    if not isinstance(scale, float) or not 0 < scale <= 1:
        raise BadCheckpoint(f"{where}: rescale_factor needs a number in (0, 1], got {str(scale)[:80]}")
    return Processor(scale=scale, mean=_three(held, "image_mean", where), deviation=_three(held, "image_std", where))


def _video_processor(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """Its configuration and the file that it is in: the library has had two forms."""
    whole = folder / "processor_config.json"
    if whole.is_file():
        held = read_json(folder, whole.name).get("video_processor")
        if isinstance(held, dict):
            return whole, held
    alone = folder / "video_preprocessor_config.json"
    if not alone.is_file():
        raise BadCheckpoint(f"{folder}: no video processor in {whole.name}, and no {alone.name}")
    return alone, read_json(folder, alone.name)


def _three(held: Mapping[str, Any], name: str, where: Path) -> tuple[float, ...]:
    value = held.get(name)
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int | float) and v > 0 for v in value):
        raise BadCheckpoint(f"{where}: {name} needs three numbers above 0, got {str(value)[:80]}")
    return tuple(float(v) for v in value)


def _state(folder: Path, *prefixes: str) -> dict[str, Tensor]:
    """The tensors under the first of `prefixes` that the folder has, cut off: tied parts are there under one name."""
    for prefix in prefixes:
        state = read_tensors(folder, (prefix,))
        if state:
            return with_prefix(state, prefix)
    raise BadCheckpoint(f"{folder}: not the weights of PE-AV; its safetensors files hold no {prefixes[0]}*")


def _part(make: Callable[[], Part], state: Mapping[str, Tensor], where: str, device: str) -> Part:
    """A part of the model with its tensors, frozen; `make` is called under the meta device."""

    try:
        with torch.device("meta"):
            module = make()
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise BadCheckpoint(f"{where}: config.json cannot be built ({str(error)[:200]})") from error
    # Rotary angles follow from the configuration, whether or not the file has them.
    fill(module, state, where=where, ignore=("rotary_emb.", "rope."))
    for name, child in list(module.named_modules()):
        if any(buffer.is_meta for buffer in child.buffers(recurse=False)):
            owner, _, own = name.rpartition(".")
            setattr(module.get_submodule(owner), own, type(child)(config=child.config))
    return frozen(module, device)
