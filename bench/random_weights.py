"""Checkpoints with seeded random weights, of published size and layout: speed and rounding can be measured without the
published ones.

Scales keep activations alive through the depth: weights of convolutions and linear layers are uniform with variance
2 / fan-in (He et al., ICCV 2015), tables of positions and tokens have variance 1/4, biases 1/2500; norms start at 1 and
0, and the batch norms' statistics are taken from real inputs (`calibrate`). AudioCLIP's transform keeps its start, the
Fourier transform, and the periodic activations of PE-AV's codec theirs. The scales of ONE-PEACE's residual branches
start at 0.1, about one over the root of twice its 40 layers.

The norm that ends a residual block of AudioCLIP's two ResNets starts at 1/4, one over the root of their 16 blocks: with
1 such a network without training is chaotic and would measure itself. Measured: rounding nothing but the pictures to
bfloat16, all arithmetic float32, turned features to a cosine of 0.989 (sound: 0.974), with 1/4 to 0.99999 (0.9996).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from catalog.recipe import Recipe
from pipeline.networks import (
    clip_resnet,
    esresnext,
    i3d,
    imagebind,
    one_peace,
    one_peace_video,
    pe_core,
    raft,
    vgg19,
    vggish,
)
from pipeline.networks.one_peace_layers import PATCH_PX

SEED = 0
_TABLE, _BIAS = 0.5, 0.02
_LAST_NORM = 0.25
_BRANCH = 0.1
# Frames a segment that small weights are for, where the network does not leave the choice.
_FRAMES = {"i3d_vggish": 16, "one_peace": 2}
_SMALL_SIDE_PX = 64


def encoders() -> tuple[str, ...]:
    """The encoders that weights can be made for."""
    return tuple(_MAKERS)


def write(encoder: str, tower: str, folder: Path, *, small: bool = False) -> dict[str, Path]:
    """Writes a checkpoint of one tower.

    Args:
        encoder: one of `encoders()`.
        tower: "visual" or "audio".
        folder: where to.
        small: a few layers of small width instead of the published sizes, where the network has sizes.

    Returns:
        The encoder's assets that hold the tower, and where they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return _MAKERS[encoder](tower, folder, small)


def small_recipe(recipe: Recipe, *, frames: int) -> Recipe:
    """`recipe` as small weights suit it, with `frames` a segment where the network leaves the choice.

    I3D looks at pictures alone: its flow is of RAFT, which is published in one size.
    """
    changes = {"settings.size": "from-weights"} if "size" in recipe.settings else {}
    if recipe.video is not None:
        changes["video.frames_per_segment"] = str(_FRAMES.get(recipe.encoder, frames))
        if recipe.encoder == "one_peace":
            changes |= dict.fromkeys(("video.height_px", "video.width_px"), str(_SMALL_SIDE_PX))
        if recipe.encoder == "i3d_vggish":
            changes |= {"settings.flow": "false", "video.frames_after": "0"}
    return recipe.changed(changes)


def calibrate(modules: Iterable[nn.Module], run: Callable[[], object]) -> None:
    """Sets the running statistics of all batch norms to those of what `run` sends through them."""
    norms = [m for module in modules for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not norms:
        return
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    run()
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
        norm.eval()


def _draw(module: nn.Module) -> None:
    def fill(tensor: torch.Tensor, deviation: float) -> None:
        nn.init.uniform_(tensor, -(3**0.5) * deviation, 3**0.5 * deviation)

    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    with torch.no_grad():
        for path, part in module.named_modules():
            if path.startswith("layer") and path.endswith("bn3"):
                nn.init.constant_(part.get_parameter("weight"), _LAST_NORM)
            for name, tensor in part.named_parameters(recurse=False):
                if name.startswith("gamma_"):
                    nn.init.constant_(tensor, _BRANCH)
                    continue
                is_norm = isinstance(part, norms) or type(part).__name__.endswith("Norm")
                if is_norm or tensor.ndim == 0 or name in ("m", "fb", "fc", "alpha"):
                    continue
                if name == "in_proj_weight" or (name == "weight" and isinstance(part, layers)):
                    fill(tensor, (2 / tensor[0].numel()) ** 0.5)
                else:
                    fill(tensor, _BIAS if "bias" in name and tensor.ndim == 1 else _TABLE)


def _save(parts: Mapping[str, nn.Module], path: Path) -> Path:
    state: dict[str, torch.Tensor] = {}
    for prefix, module in parts.items():
        _draw(module)
        state |= {prefix + key: tensor for key, tensor in module.state_dict().items()}
    torch.save(state, path)
    return path


def _audioclip(tower: str, folder: Path, small: bool) -> dict[str, Path]:
    if small:
        # Both: the width of the space is read from the one for pictures, whatever the recipe takes.
        one = (1, 1, 1, 1)
        image = clip_resnet.Config(blocks=one, width=16, embedding=32)
        sound = esresnext.Config(blocks=one, width=16, groups=8, embedding=32)
        parts = {"visual.": clip_resnet.ClipResNet(image), "audio.": esresnext.EsResNeXt(sound)}
        return {"audioclip": _save(parts, folder / "audioclip.pt")}
    net: nn.Module
    if tower == "visual":
        net = clip_resnet.ClipResNet(clip_resnet.Config.published())
    else:
        net = esresnext.EsResNeXt(esresnext.Config.published())
    return {"audioclip": _save({f"{tower}.": net}, folder / "audioclip.pt")}


def _imagebind(tower: str, folder: Path, small: bool) -> dict[str, Path]:
    config = imagebind.Config.published("vision" if tower == "visual" else "audio")
    if small:
        config = replace(config, width=96, blocks=2, embedding=32)
    return {"imagebind": _save({"": imagebind.Tower(config)}, folder / "imagebind.pth")}


def _vgg19_vggish(tower: str, folder: Path, small: bool) -> dict[str, Path]:
    if tower == "visual":
        return {"vgg19": _save({"": vgg19.Vgg19Maps()}, folder / "vgg19.pth")}
    return {"vggish": _save({"": vggish.Vggish()}, folder / "vggish.pth")}


def _clip_clap(tower: str, folder: Path, small: bool) -> dict[str, Path]:
    import transformers

    # The text towers are not measured. The defaults of the rest are clip-vit-base-patch32 and clap-htsat-unfused.
    words = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    words |= {"vocab_size": 99, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    little: dict[str, Any]
    if tower == "visual":
        little = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        look = transformers.CLIPConfig(text_config=words, vision_config=little if small else {})
        model: Any = transformers.CLIPModel(look)
        place = folder / "clip"
        place.mkdir()
        looks = {"image_mean": [0.481, 0.458, 0.408], "image_std": [0.269, 0.261, 0.276]}
        (place / "preprocessor_config.json").write_text(json.dumps(looks), encoding="utf-8")
    else:
        little = {"patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2]}
        listen = transformers.ClapConfig(text_config=words, audio_config=little if small else {})
        model = transformers.ClapModel(listen)
        place = folder / "clap"
        place.mkdir()
        extractor: Any = transformers.ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")
        extractor.save_pretrained(place)
    _draw(model)
    # Not by the model's own `save_pretrained`, which shows a progress bar.
    model.config.save_pretrained(place)
    save_file(model.state_dict(), place / "model.safetensors", metadata={"format": "pt"})
    return {place.name: place}


def _one_peace(tower: str, folder: Path, small: bool) -> dict[str, Path]:
    sizes: dict[str, Any] = {"width": 48, "heads": 2, "layers": 2, "hidden": 96} if small else {}
    if tower == "visual":
        look = replace(one_peace_video.Config.published(), **sizes)
        if small:
            look = replace(look, adapter=8, frames=_FRAMES["one_peace"], side=_SMALL_SIDE_PX // PATCH_PX)
        return {"one_peace_k400": _save({"": one_peace_video.VideoTower(look)}, folder / "onepeace_video_k400.pth")}
    listen = replace(one_peace.Config.published("audio"), **sizes)
    if small:
        listen = replace(listen, channels=24, embedding=32, rows=66)
    return {"one_peace": _save({"": one_peace.OnePeace(listen)}, folder / "one-peace.pt")}


def _i3d_vggish(tower: str, folder: Path, small: bool) -> dict[str, Path]:
    if tower == "audio":
        return {"vggish": _vgg19_vggish(tower, folder, small)["vggish"]}
    if small:
        return {
            "rgb": _save({"": i3d.I3d(i3d.Config(layout="hassony2", modality="rgb", width=8))}, folder / "i3d_rgb.pt")
        }
    return {
        "rgb": _save({"": i3d.I3d(i3d.Config.published("hassony2", "rgb"))}, folder / "i3d_rgb.pt"),
        "flow": _save({"": i3d.I3d(i3d.Config.published("hassony2", "flow"))}, folder / "i3d_flow.pt"),
        "raft": _save({"": raft.Raft()}, folder / "raft-sintel.pth"),
    }


def _pe_av(tower: str, folder: Path, small: bool) -> dict[str, Path]:
    import transformers
    from transformers.models.pe_audio.modeling_pe_audio import PeAudioContrastiveHead, PeAudioEncoder
    from transformers.models.pe_video.modeling_pe_video import PeVideoContrastiveHead, PeVideoEncoder

    # The parts are made one by one: the library's whole model would want timm for its picture tower. Sizes are the
    # library's own; the text tower is not measured, its width is that of the common space.
    name = "vit_pe_core_large_patch14_336"
    body: dict[str, Any] = {}
    looks: dict[str, Any] = {"architecture": name}
    codec: dict[str, Any] = {}
    core, width = pe_core.Config.published(), 1024
    if small:
        body = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        body |= {"head_dim": 16, "num_key_value_heads": 2}
        looks["model_args"] = {"num_heads": 2, "embed_dim": 32, "img_size": 336}
        own = pe_core.architecture_of(name, {"num_heads": 2})
        core = pe_core.Config(width=32, layers=2, hidden=64, pool_hidden=64, features=20, architecture=own)
        codec, width = {"encoder_hidden_size": 4, "codebook_dim": 12}, 32
    stand_in = transformers.ViTConfig(hidden_size=4, num_hidden_layers=0, num_attention_heads=1)
    stand_in.num_labels = core.features
    words = {"model_type": "modernbert", "hidden_size": width}
    heard = {"audio_config": body | {"dac_config": {"model_type": "dac"} | codec}}
    config: Any = transformers.PeAudioVideoConfig(
        text_config=words, audio_video_config=body | heard | {"video_config": body | {"vision_config": stand_in}}
    )
    parts: dict[str, nn.Module]
    if tower == "visual":
        seen = config.audio_video_config.video_config
        encoder: nn.Module = PeVideoEncoder(seen)
        encoder.get_submodule("embedder").vision_model = torch.nn.ModuleDict({"timm_model": pe_core.PeCore(core)})
        parts = {
            "video_model.video_encoder.": encoder,
            "video_model.video_head.": PeVideoContrastiveHead(seen.hidden_size, width),
        }
    else:
        sound = config.audio_video_config.audio_config
        parts = {
            "audio_model.audio_encoder.": PeAudioEncoder(sound),
            "audio_model.audio_head.": PeAudioContrastiveHead(sound.hidden_size, width),
        }
    place = folder / "pe_av"
    place.mkdir()
    told = config.to_dict()
    told["audio_video_config"]["video_config"]["vision_config"] = {"model_type": "timm_wrapper"} | looks
    (place / "config.json").write_text(json.dumps(told, default=str), encoding="utf-8")
    state: dict[str, torch.Tensor] = {}
    for prefix, part in parts.items():
        _draw(part)
        state |= {prefix + key: tensor.contiguous() for key, tensor in part.state_dict().items()}
    save_file(state, place / "model.safetensors", metadata={"format": "pt"})
    extractor: Any = transformers.PeAudioFeatureExtractor()
    extractor.save_pretrained(place)
    side = {"height": core.side_px, "width": core.side_px}
    frames = {"size": side, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (place / "video_preprocessor_config.json").write_text(json.dumps(frames), encoding="utf-8")
    return {"pe_av": place}


_MAKERS: Mapping[str, Callable[[str, Path, bool], dict[str, Path]]] = {
    "audioclip": _audioclip,
    "clip_clap": _clip_clap,
    "i3d_vggish": _i3d_vggish,
    "imagebind": _imagebind,
    "one_peace": _one_peace,
    "pe_av": _pe_av,
    "vgg19_vggish": _vgg19_vggish,
}
