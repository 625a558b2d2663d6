"""ImageBind's towers for images, audio and text: one transformer each, into one space of 1024 dimensions.

A tower holds its parameters under the published names: `modality_preprocessors.M.`, `modality_trunks.M.`,
`modality_heads.M.` and `modality_postprocessors.M.` of its modality M, so it loads from the published file as it is;
the other modalities' keys are somebody else's.

All LayerNorms have eps 1e-6 but that of the audio patches, which has 1e-5. The output is a unit vector, times
min(exp(log_logit_scale), 100) from the file for text (learnt) and audio (20); an image's is not scaled.

Shape suffixes: B clips, L tokens, C width, D embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.fields import Size, check_fields

Modality = Literal["vision", "audio", "text"]

EPS = 1e-6
MAX_SCALE = 100.0
# Attention heads of the published trunks, by modality: the file does not hold them.
NUM_HEADS: Mapping[str, int] = {"vision": 16, "audio": 12, "text": 16}
# Audio: log-mel spectrograms of 128 bands x 204 frames, patches of 16 every 10.
MEL_BANDS, MEL_FRAMES, MEL_PATCH, MEL_STRIDE = 128, 204, 16, 10
PATCH_PX = 14
FRAMES_A_CLIP = 2

_PARTS = ("modality_preprocessors", "modality_trunks", "modality_heads", "modality_postprocessors")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one tower.

    Attributes:
        modality: which.
        width: C. blocks: transformer layers. tokens: L, class token included. embedding: D.
        vocabulary: of text.
    """

    modality: Modality
    width: Size
    blocks: Size
    tokens: Size
    embedding: Size = 1024
    vocabulary: Size = 49408

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % NUM_HEADS[self.modality]:
            raise ValueError(f"an ImageBind tower's width must be a multiple of its heads, got {self}")

    @classmethod
    def published(cls, modality: Modality) -> Config:
        """The sizes of imagebind_huge.pth."""
        width, blocks, tokens = {"vision": (1280, 32, 257), "audio": (768, 12, 229), "text": (1024, 24, 77)}[modality]
        return cls(modality=modality, width=width, blocks=blocks, tokens=tokens)

    @classmethod
    def of(cls, state: Mapping[str, Tensor], modality: Modality) -> Config:
        """The sizes that a whole state dict speaks of.

        Raises:
            ValueError: it is no ImageBind's, or lacks this modality.
        """
        pattern = re.compile(rf"modality_trunks\.{modality}\.blocks\.(\d+)\.")
        numbers = [int(found[1]) for key in state if (found := pattern.match(key))]
        if not numbers:
            raise ValueError(f"not the state dict of an ImageBind: no modality_trunks.{modality}.blocks")
        inner = "" if modality == "text" else "pos_embedding_helper."
        head = "proj.1" if modality == "text" else "2"
        try:
            position = state[f"modality_preprocessors.{modality}.{inner}pos_embed"]
            embedding = state[f"modality_heads.{modality}.{head}.weight"].shape[0]
            return cls(
                modality=modality,
                width=int(position.shape[2]),
                blocks=1 + max(numbers),
                tokens=int(position.shape[1]),
                embedding=int(embedding),
            )
        except (KeyError, IndexError) as error:
            raise ValueError(f"not the state dict of an ImageBind: {error}") from error


def belongs(key: str, modality: str) -> bool:
    """Whether a key of the published file is this modality's."""
    part, _, rest = key.partition(".")
    return part in _PARTS and rest.startswith(f"{modality}.")


class Tower(nn.Module):
    """One modality: prepared input to scaled unit vectors."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, modality = config.width, config.modality
        stem: nn.Module = {"vision": _PictureStem, "audio": _SoundStem, "text": _TextStem}[modality](config)
        trunk = nn.Module()
        if modality == "vision":
            trunk.pre_transformer_layer = nn.Sequential(nn.LayerNorm(width, eps=EPS))
        blocks = nn.ModuleList(
            _Block(width, NUM_HEADS[modality], extra_key=modality == "audio") for _ in range(config.blocks)
        )
        trunk.blocks = blocks
        norm, project = nn.LayerNorm(width, eps=EPS), nn.Linear(width, config.embedding, bias=False)
        head = nn.ModuleDict({"0": norm, "2": project})
        if modality == "text":
            head = nn.ModuleDict({"proj": nn.ModuleDict({"0": norm, "1": project})})
        self.modality_preprocessors = nn.ModuleDict({modality: stem})
        self.modality_trunks = nn.ModuleDict({modality: trunk})
        self.modality_heads = nn.ModuleDict({modality: head})
        if modality != "vision":
            scale = nn.Module()
            learnt = modality == "text"
            scale.log_logit_scale = nn.Parameter(torch.tensor(20.0).log(), requires_grad=learnt)
            self.modality_postprocessors = nn.ModuleDict({modality: nn.ModuleDict({"1": scale})})
        # In lists: they are registered under their published names already.
        self._blocks, self._norm, self._project = [blocks], [norm], [project]

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) features.

        Args:
            x: of one clip each: images (B, 3, 2, H, W) or (B, 3, H, W), which are shown twice; mel (B, 1, 128, 204);
                tokens int64 (B, 77).
        """
        modality = self.config.modality
        trunk = self.modality_trunks[modality]
        tokens_BLC = self.modality_preprocessors[modality](x)
        if modality == "vision":
            tokens_BLC = trunk.get_submodule("pre_transformer_layer")(tokens_BLC)
        for block in self._blocks[0]:
            tokens_BLC = block(tokens_BLC, causal=modality == "text")
        if modality == "text":
            # Normalised, then taken at the end token; both orders are equal, this one is cheaper.
            summary_BC = tokens_BLC[torch.arange(len(x), device=x.device), x.argmax(dim=1)]
        else:
            summary_BC = tokens_BLC[:, 0]
        with torch.autocast(x.device.type, enabled=False):
            features_BD = self._project[0](self._norm[0](summary_BC.float()))
            unit_BD: Tensor = F.normalize(features_BD, dim=-1)
            if modality == "vision":
                return unit_BD
            scale = self.get_parameter(f"modality_postprocessors.{modality}.1.log_logit_scale")
            return unit_BD * scale.exp().clamp(max=MAX_SCALE)


class _PictureStem(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        patch = (FRAMES_A_CLIP, PATCH_PX, PATCH_PX)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        convolution = nn.Conv3d(3, config.width, patch, stride=patch, bias=False)
        # Number 0 of the published list turns images into clips and has no parameters.
        self.rgbt_stem = nn.ModuleDict({"proj": nn.ModuleDict({"1": convolution})})
        self.pos_embedding_helper = _Positions(config)
        self._convolution = [convolution]

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            x = x[:, :, None].expand(-1, -1, FRAMES_A_CLIP, -1, -1)
        patches_BLC = self._convolution[0](x).flatten(2).transpose(1, 2)
        return _with_class(self.cls_token, patches_BLC) + self.pos_embedding_helper.pos_embed


class _SoundStem(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        convolution = nn.Conv2d(1, config.width, MEL_PATCH, stride=MEL_STRIDE, bias=False)
        norm = nn.LayerNorm(config.width, eps=1e-5)
        self.rgbt_stem = nn.ModuleDict({"proj": convolution, "norm_layer": norm})
        self.pos_embedding_helper = _Positions(config)
        self._convolution, self._norm = [convolution], [norm]

    def forward(self, x: Tensor) -> Tensor:
        patches_BLC = self._norm[0](self._convolution[0](x).flatten(2).transpose(1, 2))
        return _with_class(self.cls_token, patches_BLC) + self.pos_embedding_helper.pos_embed


class _TextStem(nn.Module):
    mask: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        # In the published file; attention here is causal without it.
        self.register_buffer("mask", torch.full((config.tokens, config.tokens), -torch.inf).triu(1))

    def forward(self, tokens_BL: Tensor) -> Tensor:
        made: Tensor = self.token_embedding(tokens_BL) + self.pos_embed
        return made


class _Positions(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))


class _Block(nn.Module):
    """Pre-norm transformer layer with an exact GELU."""

    def __init__(self, width: int, num_heads: int, *, extra_key: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, num_heads, add_bias_kv=extra_key, batch_first=True)
        self.norm_1 = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.norm_2 = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        x = x + self._attend(self.norm_1(x), causal=causal)
        made: Tensor = x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm_2(x))))
        return made

    def _attend(self, x: Tensor, *, causal: bool) -> Tensor:
        query, key, value = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias).chunk(3, dim=-1)
        if self.attn.bias_k is not None and self.attn.bias_v is not None:
            # One learnt key and value more, at the end.
            key = torch.cat([key, self.attn.bias_k.to(key.dtype).expand(len(x), -1, -1)], dim=1)
            value = torch.cat([value, self.attn.bias_v.to(value.dtype).expand(len(x), -1, -1)], dim=1)
        size = (self.attn.num_heads, -1)
        q, k, v = (part.reshape(*part.shape[:2], *size).transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        made: Tensor = self.attn.out_proj(mixed.transpose(1, 2).flatten(2))
        return made


def _with_class(token_11C: Tensor, patches_BLC: Tensor) -> Tensor:
    return torch.cat([token_11C.expand(len(patches_BLC), -1, -1), patches_BLC], dim=1)
