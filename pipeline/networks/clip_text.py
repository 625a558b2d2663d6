"""CLIP's text tower, as in AudioCLIP: token ids to one vector. Keys are the published ones, without prefix.

Shape suffixes: B texts, L tokens, C width, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.fields import Size, check_fields

HEAD_WIDTH = 64
# Keys of the file begin with these.
KEYS = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes; the defaults are the published ones (63.7 M parameters)."""

    width: Size = 512
    layers: Size = 12
    tokens: Size = 77
    vocabulary: Size = 49408
    embedding: Size = 1024

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def published(cls) -> Config:
        """The sizes of the published checkpoint."""
        return cls()

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Config:
        """The sizes that a state dict speaks of.

        Raises:
            ValueError: it is no such network's.
        """
        try:
            prefix = "transformer.resblocks."
            return cls(
                width=int(state["token_embedding.weight"].shape[1]),
                layers=1 + max(int(key.split(".")[2]) for key in state if key.startswith(prefix)),
                tokens=int(state["positional_embedding"].shape[0]),
                vocabulary=int(state["token_embedding.weight"].shape[0]),
                embedding=int(state["text_projection"].shape[1]),
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"not the state dict of a CLIP text tower ({error})") from error


class ClipText(nn.Module):
    """Token ids to unnormalised features."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.tokens, config.width))
        self.transformer = _Transformer(config.width, config.layers)
        self.ln_final = nn.LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.randn(config.width, config.embedding) / config.width**0.5)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """(B, D) features, unnormalised, of the position of the largest id (the end token)."""
        x = self.token_embedding(tokens_BL) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        ends_BC = x[torch.arange(len(x), device=x.device), tokens_BL.argmax(dim=1)]
        features_BD: Tensor = ends_BC @ self.text_projection
        return features_BD


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(_Block(width) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.resblocks(x)
        return made


class _Block(nn.Module):
    """Pre-norm; each token sees itself and those before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, max(1, width // HEAD_WIDTH), batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.ln_1(x))
        inner = self.mlp["c_fc"](self.ln_2(x))
        # QuickGELU; the exact GELU would change features by 1 %.
        made: Tensor = x + self.mlp["c_proj"](inner * torch.sigmoid(1.702 * inner))
        return made

    def _attend(self, x: Tensor) -> Tensor:
        # The module holds the published parameters; its own forward would need an explicit mask.
        qkv = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias)
        size = (*x.shape[:2], self.attn.num_heads, -1)
        query, key, value = (part.reshape(size).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        made: Tensor = self.attn.out_proj(mixed.transpose(1, 2).flatten(2))
        return made
