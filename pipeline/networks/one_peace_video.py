"""ONE-PEACE's image branch fine-tuned on Kinetics-400: clips of T frames, each frame attends to the others.

Keys are those of onepeace_video_k400.pth. Each layer attends twice with the same weights: over the T frames at every
position, then over the positions of every frame with the learnt bias by distance. Small adapters follow each step.

What a frame is alone, its patches, is `VideoTower.stem`; windows that overlap share it. From the first layer on a
frame's tokens depend on its position in the window (the temporal embedding) and on the other frames: nothing more can
be shared.

Shape suffixes: B clips, T frames of a clip, F frames, N tokens of a frame (class token first), C width, A heads,
H W pixels, K classes.

Source: Wang et al., ONE-PEACE, 2023 (arXiv 2305.11172); github.com/OFA-Sys/ONE-PEACE, one_peace_vision/video. The
adapters are AIM's: Yang et al., AIM: Adapting Image Models for Efficient Video Action Recognition, ICLR 2023.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from catalog.fields import Size, check_fields
from pipeline.networks.one_peace_layers import (
    EPS,
    PATCH_PX,
    Attention,
    FeedForward,
    bias_of,
    check_buckets,
    image_buckets,
    image_reach,
    image_rows,
    patches,
    with_class_token,
)

# Share of the adapter beside the feed-forward part.
ADAPTER_SCALE = 0.5

_STEM, _LAYERS = "backbone.image_adapter.", "backbone.encoder.layers."


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes; the defaults are those of onepeace_video_k400.pth.

    Attributes:
        width: C. heads: A. layers: of the transformer. hidden, adapter: of the feed-forward parts and the adapters.
        frames: T. side: patches a side. classes: K; None without the classifier.
    """

    width: Annotated[Size, Field(multiple_of=4)] = 1536
    heads: Size = 24
    layers: Size = 40
    hidden: Size = 6144
    adapter: Size = 384
    frames: Size = 16
    side: Size = 16
    classes: Size | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % self.heads:
            raise ValueError(f"ONE-PEACE's video tower needs a width that divides by its heads, got {self}")

    @property
    def side_px(self) -> int:
        """Pixels a side of a frame."""
        return self.side * PATCH_PX

    @classmethod
    def published(cls) -> Config:
        """The sizes of onepeace_video_k400.pth, of its classifier nothing."""
        return cls()

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Config:
        """The sizes that a state dict, as `completed` gives it, speaks of.

        Raises:
            ValueError: it is no such network's.
        """
        numbers = [int(found[1]) for key in state if (found := re.match(re.escape(_LAYERS) + r"(\d+)\.", key))]
        try:
            if not numbers:
                raise KeyError(f"{_LAYERS}0")
            _, frames, width = state[f"{_STEM}temporal_embedding"].shape
            rows, heads = state[f"{_STEM}rel_pos_table.weight"].shape
            side = math.isqrt(state[f"{_STEM}pos_embed"].shape[0] - 1)
            if rows != image_rows(side):
                raise ValueError(f"a table of biases of {rows} rows is not for {side} x {side} patches")
            classifier = state.get("cls_head.fc_cls.weight")
            return cls(
                width=int(width),
                heads=int(heads),
                layers=1 + max(numbers),
                hidden=int(state[f"{_LAYERS}0.image_ffn.0.wi_0.weight"].shape[0]),
                adapter=int(state[f"{_LAYERS}0.T_Adapter.D_fc1.weight"].shape[0]),
                frames=int(frames),
                side=side,
                classes=None if classifier is None else int(classifier.shape[0]),
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"not the state dict of ONE-PEACE's video tower: {error}") from error


def completed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict; buckets of distances are put in where the file lacks them.

    Raises:
        ValueError: the file's buckets point outside its table.
    """
    own = dict(state)
    table = own.get(f"{_STEM}rel_pos_table.weight")
    if table is not None and table.ndim == 2 and not table.is_meta:
        own.setdefault(f"{_STEM}rp_bucket", image_buckets(image_reach(len(table))))
        check_buckets(own[f"{_STEM}rp_bucket"], len(table))
    return own


class VideoTower(nn.Module):
    """Clips to features."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        stem = _Stem(config)
        layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        norm = nn.LayerNorm(config.width, eps=EPS)
        self.backbone = nn.ModuleDict(
            {"image_adapter": stem, "encoder": nn.ModuleDict({"layers": layers, "image_layer_norm": norm})}
        )
        if config.classes is not None:
            self.cls_head = nn.ModuleDict({"fc_cls": nn.Linear(config.width, config.classes)})
        # In lists: they are registered under their published names already.
        self._stem, self._layers, self._norm = [stem], [layers], [norm]

    def forward(self, clips_BTCHW: Tensor) -> Tensor:
        """Features (B, C), as the classifier takes them, of clips (B, T, 3, H, W) of published mean and deviation."""
        tokens_FNC = self.stem(clips_BTCHW.flatten(0, 1))
        return self.class_tokens(tokens_FNC.reshape(*clips_BTCHW.shape[:2], *tokens_FNC.shape[1:])).mean(dim=1)

    def stem(self, frames_BCHW: Tensor) -> Tensor:
        """Tokens (B, N, C) of frames (B, 3, H, W), each by itself.

        Raises:
            ValueError: frames of another size.
        """
        side_px = self.config.side_px
        if frames_BCHW.shape[2:] != (side_px, side_px):
            raise ValueError(
                f"this ONE-PEACE takes {side_px} x {side_px} pixels, got {tuple(frames_BCHW.shape[2:])}; resize first"
            )
        made: Tensor = self._stem[0](frames_BCHW)
        return made

    def class_tokens(self, tokens_BTNC: Tensor) -> Tensor:
        """Each frame's class token at the end, (B, T, C), of what `stem` gives for a clip's frames.

        Raises:
            ValueError: another number of frames.
        """
        if tokens_BTNC.shape[1] != self.config.frames:
            raise ValueError(f"this ONE-PEACE takes clips of {self.config.frames} frames, got {tokens_BTNC.shape[1]}")
        kind = tokens_BTNC.device.type
        bias_1ANN = self._stem[0].bias()
        if torch.is_autocast_enabled(kind):
            bias_1ANN = bias_1ANN.to(torch.get_autocast_dtype(kind))
        x_BTNC = tokens_BTNC + self._stem[0].temporal_embedding[:, :, None]
        for layer in self._layers[0]:
            x_BTNC = layer(x_BTNC, bias_1ANN)
        made: Tensor = self._norm[0](x_BTNC[:, :, 0])
        return made

    def classify(self, features_BC: Tensor) -> Tensor:
        """Logits (B, K) of features.

        Raises:
            ValueError: the classifier was left out.
        """
        if self.config.classes is None:
            raise ValueError("this video tower was loaded without its classifier")
        made: Tensor = self.cls_head["fc_cls"](features_BC)
        return made


class _Stem(nn.Module):
    rp_bucket: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        tokens = config.side**2 + 1
        self.cls_embedding = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(tokens, config.width))
        self.temporal_embedding = nn.Parameter(torch.zeros(1, config.frames, config.width))
        self.register_buffer("rp_bucket", torch.zeros(tokens, tokens, dtype=torch.int64))
        self.embed_images = patches(config.width)
        self.rel_pos_table = nn.Embedding(image_rows(config.side), config.heads)

    def forward(self, frames_BCHW: Tensor) -> Tensor:
        patches_BNC = self.embed_images(frames_BCHW).flatten(2).transpose(1, 2)
        return with_class_token(self.cls_embedding, patches_BNC) + self.pos_embed

    def bias(self) -> Tensor:
        return bias_of(self.rel_pos_table, self.rp_bucket)


class _Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.zeros(config.width))
        self.gamma_2 = nn.Parameter(torch.zeros(config.width))
        self.self_attn = Attention(config.width, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.width, eps=EPS)
        self.image_ffn = FeedForward(config.width, config.hidden)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=EPS)
        self.MLP_Adapter = _Adapter(config.width, config.adapter)
        self.S_Adapter = _Adapter(config.width, config.adapter)
        self.T_Adapter = _Adapter(config.width, config.adapter)

    def forward(self, x_BTNC: Tensor, bias_1ANN: Tensor) -> Tensor:
        given_BTNC = x_BTNC
        clips, frames, tokens = x_BTNC.shape[:3]
        over_time = self.self_attn_layer_norm(x_BTNC).transpose(1, 2).flatten(0, 1)
        over_time = self.T_Adapter(self.self_attn(over_time))
        x_BTNC = x_BTNC + over_time.reshape(clips, tokens, frames, -1).transpose(1, 2)
        over_place = self.self_attn(self.self_attn_layer_norm(x_BTNC).flatten(0, 1), bias_1ANN)
        over_place = (over_place + self.S_Adapter(over_place)).reshape(x_BTNC.shape)
        # To what the layer was given: what was seen over time counts through the second attention alone.
        x_BTNC = given_BTNC + self.gamma_1 * over_place
        normed = self.final_layer_norm(x_BTNC)
        made: Tensor = x_BTNC + self.gamma_2 * self.image_ffn(normed) + ADAPTER_SCALE * self.MLP_Adapter(normed)
        return made


class _Adapter(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.D_fc1 = nn.Linear(width, hidden)
        self.D_fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.D_fc2(F.gelu(self.D_fc1(x)))
        return made
