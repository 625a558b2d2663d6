"""Perception Encoder's image tower (PE core): a vision transformer with rotary positions and a learned pooling query.

State-dict keys are those of the timm library's `vit_pe_core_*`, which published PE-AV checkpoints hold. Sizes are read
from the tensors; heads and the grid that rotary positions refer to, which no shape shows, follow from the
architecture's name.

Shape suffixes: B images, N tokens, C width, A heads, E width of a head, D features.

Source: Bolya et al., Perception Encoder: The best visual embeddings are not at the output of the network, 2025
(arXiv 2504.13181). Checked against timm 1.0.31.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.fields import Size, check_fields

NORM_EPS = 1e-5
ROPE_BASE = 10000.0


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes that the tensors' shapes do not show.

    Attributes:
        heads, pool_heads: of the blocks, and of the pooling query.
        rope_side: patches a side that rotary positions are scaled to: those of the images it was trained on.
        rope_offset: position of the first patch.
    """

    heads: int
    rope_side: int
    rope_offset: float = 1.0
    pool_heads: int = 8


ARCHITECTURES: Mapping[str, Architecture] = {
    "vit_pe_core_tiny_patch16_384": Architecture(heads=3, rope_side=24),
    "vit_pe_core_small_patch16_384": Architecture(heads=6, rope_side=24),
    "vit_pe_core_base_patch16_224": Architecture(heads=12, rope_side=14),
    "vit_pe_core_large_patch14_336": Architecture(heads=16, rope_side=24),
    "vit_pe_core_gigantic_patch14_448": Architecture(heads=16, rope_side=32, rope_offset=0.0),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes; the defaults are those of the large tower, which the published PE-AV checkpoints name.

    Attributes:
        width: C. layers: blocks. hidden: of the blocks' MLP. pool_hidden: of the pooling's MLP.
        patch_px, side_px: of a patch and of the image.
        has_class_token: a token before the patches'.
        features: D.
        architecture: what shapes do not show.
    """

    width: Size = 1024
    layers: Size = 24
    hidden: Size = 4096
    pool_hidden: Size = 4096
    patch_px: Size = 14
    side_px: Size = 336
    has_class_token: bool = True
    features: Size = 1024
    architecture: Architecture = ARCHITECTURES["vit_pe_core_large_patch14_336"]

    def __post_init__(self) -> None:
        check_fields(self)
        if self.side_px % self.patch_px:
            raise ValueError(f"a PE core tower needs whole patches, got {self}")
        kind = self.architecture
        if min(kind.heads, kind.pool_heads, kind.rope_side) < 1 or self.width % kind.pool_heads:
            raise ValueError(f"a PE core tower's width must divide by its heads, got {self}")
        if self.width % (4 * kind.heads):
            raise ValueError(f"rotary positions in two directions need heads of a multiple of 4 numbers, got {self}")

    @property
    def side(self) -> int:
        """Patches a side."""
        return self.side_px // self.patch_px

    @classmethod
    def published(cls) -> Config:
        """The large tower's sizes, at 336 px."""
        return cls()

    @classmethod
    def of(cls, state: Mapping[str, Tensor], architecture: Architecture) -> Config:
        """The sizes that a state dict speaks of.

        Raises:
            ValueError: it is no such network's.
        """
        try:
            width, channels, height, patch_px = state["patch_embed.proj.weight"].shape
            has_class_token = "cls_token" in state
            patches = state["pos_embed"].shape[1] - has_class_token
            side = round(patches**0.5)
            if (channels, height, side * side) != (3, patch_px, patches):
                raise ValueError("it is not of square RGB images in square patches")
            return cls(
                width=int(width),
                layers=1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
                hidden=int(state["blocks.0.mlp.fc1.weight"].shape[0]),
                pool_hidden=int(state["attn_pool.mlp.fc1.weight"].shape[0]),
                patch_px=int(patch_px),
                side_px=side * int(patch_px),
                has_class_token=has_class_token,
                features=int(state["head.weight"].shape[0]),
                architecture=architecture,
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"not the state dict of a PE core tower ({error})") from error


def architecture_of(name: str, changes: Mapping[str, object]) -> Architecture:
    """The architecture of a tower that a configuration names.

    Args:
        name: timm's.
        changes: arguments that the configuration gives beside the name. Sizes among them are in the shapes too.

    Raises:
        ValueError: an unknown name, or a change of how the network computes.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"image tower {name!r} is none of those known here: {', '.join(ARCHITECTURES)}")
    kind = ARCHITECTURES[name]
    for key, value in changes.items():
        if key in ("num_heads", "attn_pool_num_heads") and isinstance(value, int):
            kind = replace(kind, heads=value) if key == "num_heads" else replace(kind, pool_heads=value)
        elif key not in _IN_SHAPES:
            raise ValueError(f"image tower {name}: the argument {key}={value!r} is not supported")
    return kind


# Arguments whose effect the tensors' shapes show.
_IN_SHAPES = ("embed_dim", "depth", "mlp_ratio", "attn_pool_mlp_ratio", "img_size", "patch_size", "num_classes")


class PeCore(nn.Module):
    """Images to features."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        tokens = config.side**2 + config.has_class_token
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width)) if config.has_class_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, config.width))
        self.patch_embed = _Patches(config)
        self.norm_pre = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.attn_pool = _Pool(config)
        self.head = nn.Linear(config.width, config.features)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Unnormalised features, float (B, D), of images (B, 3, side_px, side_px) in [-1, 1]."""
        x_BNC = self.patch_embed.proj(images_BCHW).flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            x_BNC = torch.cat([self.cls_token.expand(len(x_BNC), -1, -1).to(x_BNC.dtype), x_BNC], dim=1)
        x_BNC = self.norm_pre(x_BNC + self.pos_embed)
        turns_NE = rotary_angles(self.config, x_BNC.device)
        for block in self.blocks:
            x_BNC = block(x_BNC, turns_NE)
        features: Tensor = self.head(self.attn_pool(self.norm(x_BNC)))
        return features


def rotary_angles(config: Config, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sine and cosine of each patch's rotary angles, float32 (side * side, E): half of E turns with x, half with y."""
    kind, side = config.architecture, config.side
    quarter = config.width // kind.heads // 4
    speeds = ROPE_BASE ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    at = (torch.arange(side, device=device, dtype=torch.float32) + kind.rope_offset) / side * kind.rope_side
    angles = at[:, None] * speeds
    x_HWE = angles[None, :].expand(side, side, quarter)
    y_HWE = angles[:, None].expand(side, side, quarter)
    # Numbers 2i and 2i + 1 of a head are one plane and turn together.
    angles_NE = torch.cat([x_HWE, y_HWE], dim=-1).reshape(side * side, 2 * quarter).repeat_interleave(2, dim=-1)
    return angles_NE.sin(), angles_NE.cos()


class _Patches(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch_px, stride=config.patch_px, bias=False)


class _Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.attn = _Attention(config.width, config.architecture.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.mlp = _Mlp(config.width, config.hidden)

    def forward(self, x_BNC: Tensor, turns_NE: tuple[Tensor, Tensor]) -> Tensor:
        x_BNC = x_BNC + self.attn(self.norm1(x_BNC), turns_NE)
        y: Tensor = x_BNC + self.mlp(self.norm2(x_BNC))
        return y


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor, turns_NE: tuple[Tensor, Tensor]) -> Tensor:
        batch, tokens, width = x_BNC.shape
        qkv = self.qkv(x_BNC).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q_BANE, k_BANE, v_BANE = qkv.unbind(0)
        y_BANE = F.scaled_dot_product_attention(_turned(q_BANE, turns_NE), _turned(k_BANE, turns_NE), v_BANE)
        y: Tensor = self.proj(y_BANE.transpose(1, 2).reshape(batch, tokens, width))
        return y


class _Pool(nn.Module):
    """One learned query looks at all tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.heads = config.architecture.pool_heads
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = _Mlp(width, config.pool_hidden)

    def forward(self, x_BNC: Tensor) -> Tensor:
        batch, tokens, width = x_BNC.shape
        q_BANE = self.q(self.latent).view(1, 1, self.heads, -1).transpose(1, 2).expand(batch, -1, -1, -1)
        k_BANE, v_BANE = self.kv(x_BNC).view(batch, tokens, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y_BC = F.scaled_dot_product_attention(q_BANE, k_BANE, v_BANE).reshape(batch, width)
        y_BC = self.proj(y_BC)
        y: Tensor = y_BC + self.mlp(self.norm(y_BC))
        return y


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


def _turned(x_BANE: Tensor, turns_NE: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions on the patches' tokens; a token before them has none."""
    sine_NE, cosine_NE = turns_NE
    skip = x_BANE.shape[2] - sine_NE.shape[0]
    patches = x_BANE[:, :, skip:]
    crossed = torch.stack([-patches[..., 1::2], patches[..., ::2]], dim=-1).flatten(-2)
    turned = (patches * cosine_NE + crossed * sine_NE).to(x_BANE.dtype)
    return torch.cat([x_BANE[:, :, :skip], turned], dim=2)
