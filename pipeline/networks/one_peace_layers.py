"""Parts of ONE-PEACE's networks: text, images and audio as tokens, biases by how far apart those are, and
the parts of a layer. `networks/one_peace.py` and `networks/one_peace_video.py` share it.

A stem holds its parameters under the published names of `text_adapter`, `image_adapter` and `audio_adapter`. A learnt
class token comes first. Attention is biased by learnt tables: a pair of tokens falls into a bucket by the distance of
their positions, and each table has a number a bucket and head.

Shape suffixes: B batch, N tokens (class token first), C width, A heads, E width of a head, H W pixels, P patches a
side, L audio samples, T audio frames.

Source: Wang et al., ONE-PEACE: Exploring One General Representation Model Toward Unlimited Modalities, 2023
(arXiv 2305.11172); github.com/OFA-Sys/ONE-PEACE.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5
PATCH_PX = 16
# Most tokens of a text or of audio, class token included.
MAX_TOKENS = 1024
# Kernel and stride of the convolutions that audio begins with: a frame every 320 samples.
SOUND_LAYERS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
# The convolutions that give audio frames their positions.
PLACE_LAYERS, PLACE_KERNEL, POSITION_GROUPS = 5, 19, 16
PADDING = 1  # token of a text


def audio_frames(num_samples: int) -> int:
    """T of so many samples at 16 kHz: 49 of a second."""
    for kernel, stride in SOUND_LAYERS:
        num_samples = (num_samples - kernel) // stride + 1
    return max(num_samples, 0)


def token_buckets(rows: int) -> Tensor:
    """Bucket of each pair of text or audio tokens, int64 (1024, 1024).

    Distances below a quarter of the table have a bucket each, longer ones share them by their logarithm; the last three
    are of the class token: to another, from another, to itself.

    Args:
        rows: of the table, 514 for text and 1026 for audio.
    """
    reach = (rows - 2) // 2
    near = reach // 2
    position = torch.arange(MAX_TOKENS)
    away = position[:, None] - position[None, :]
    # float32 and in this order, for a rounded-up logarithm on the edge of a bucket would fall into the next.
    steps = torch.log(away.abs().clamp(min=near - 1) / near) / math.log((MAX_TOKENS - 1) / near) * (near - 1)
    far = (near + torch.ceil(steps).long()) * torch.sign(away)
    return _with_class(torch.where(away.abs() <= near, away, far) + reach - 1, rows)


def image_buckets(side: int) -> Tensor:
    """Bucket of each pair of an image's tokens, int64 (P ** 2 + 1, P ** 2 + 1): one for each step down and right.

    Args:
        side: P.
    """
    row, column = (axis.reshape(-1) for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    down, right = row[:, None] - row[None, :], column[:, None] - column[None, :]
    span = 2 * side - 1
    buckets = torch.zeros(side**2 + 1, side**2 + 1, dtype=torch.int64)
    buckets[1:, 1:] = (down + side - 1) * span + right + side - 1
    return _with_class(buckets, image_rows(side))


def image_rows(side: int) -> int:
    """Rows of an image's table."""
    return (2 * side - 1) ** 2 + 3


def image_reach(rows: int) -> int:
    """Patches a side that an image's table of so many rows is for."""
    return (math.isqrt(max(rows - 3, 0)) + 1) // 2


def check_buckets(buckets: Tensor, rows: int) -> None:
    """Refuses buckets that no row of the table is for.

    Raises:
        ValueError: so.
    """
    low, high = torch.aminmax(buckets) if buckets.numel() else (torch.tensor(0), torch.tensor(0))
    if int(low) < 0 or int(high) >= rows:
        raise ValueError(f"rp_bucket holds {int(low)} .. {int(high)} for a table of {rows} rows")


class Stem(nn.Module):
    """Class token, and biases by distance; the base of all stems.

    Args:
        width: C. heads: A. rows: buckets of a table. max_tokens: tokens that buckets are known for.
        tables: one for all layers, or one a layer.
    """

    rp_bucket: Tensor

    def __init__(self, width: int, heads: int, *, rows: int, max_tokens: int, tables: int) -> None:
        super().__init__()
        self.cls_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("rp_bucket", torch.zeros(max_tokens, max_tokens, dtype=torch.int64))
        self.rel_pos_table_list = nn.ModuleList(nn.Embedding(rows, heads) for _ in range(tables))

    def biases(self, num_tokens: int) -> list[Tensor]:
        """Of each table (1, A, N, N), in the table's dtype.

        Raises:
            ValueError: more tokens than `max_tokens`.
        """
        if num_tokens > len(self.rp_bucket):
            raise ValueError(
                f"ONE-PEACE takes at most {len(self.rp_bucket)} tokens, got {num_tokens}; shorten the input"
            )
        return [bias_of(table, self.rp_bucket[:num_tokens, :num_tokens]) for table in self.rel_pos_table_list]


def bias_of(table: nn.Module, buckets_NN: Tensor) -> Tensor:
    """(1, A, N, N) of a table of biases."""
    made: Tensor = table(buckets_NN)
    return made.permute(2, 0, 1).contiguous()[None]


class TextStem(Stem):
    """Token numbers to tokens; keys of `text_adapter`."""

    def __init__(
        self, width: int, heads: int, *, rows: int, tables: int, vocabulary: int, max_tokens: int, positions: int
    ) -> None:
        super().__init__(width, heads, rows=rows, max_tokens=max_tokens, tables=tables)
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.embed_positions = nn.Embedding(positions, width)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """(B, N, C) of token numbers int64 (B, N - 1), `PADDING` behind a text's end."""
        if tokens_BL.shape[1] >= self.embed_positions.num_embeddings:
            raise ValueError(
                f"ONE-PEACE has positions for {self.embed_positions.num_embeddings - 1} tokens of a text, "
                f"got {tokens_BL.shape[1]}; shorten the text"
            )
        x_BNC = with_class_token(self.cls_embedding, self.embed_tokens(tokens_BL))
        made: Tensor = x_BNC + self.embed_positions.weight[: x_BNC.shape[1]]
        return made


class ImageStem(Stem):
    """Images to tokens, a patch of 16 x 16 pixels each; keys of `image_adapter`."""

    position_idx: Tensor

    def __init__(self, width: int, heads: int, *, side: int, reach: int, tables: int) -> None:
        super().__init__(width, heads, rows=image_rows(reach), max_tokens=reach**2 + 1, tables=tables)
        self.pos_embed = nn.Parameter(torch.zeros(side**2 + 1, width))
        self.register_buffer("position_idx", torch.arange(side**2 + 1))
        self.embed_images = patches(width)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, N, C) of images (B, 3, 16 P, 16 P); learnt position embeddings for another P are resized bicubically."""
        side = images_BCHW.shape[2] // PATCH_PX
        x_BNC = with_class_token(self.cls_embedding, self.embed_images(images_BCHW).flatten(2).transpose(1, 2))
        return x_BNC + stretched(self.pos_embed, side)


class AudioStem(Stem):
    """Samples to tokens, one a frame of 320 samples (25 ms seen); keys of `audio_adapter`."""

    def __init__(self, width: int, heads: int, *, rows: int, tables: int, max_tokens: int, channels: int) -> None:
        super().__init__(width, heads, rows=rows, max_tokens=max_tokens, tables=tables)
        self.cls_pos_embed = nn.Parameter(torch.zeros(1, 1, width))
        # Of masked pre-training; in the published files.
        self.mask_embedding = nn.Parameter(torch.zeros(1, width))
        self.embed_audios = _SoundFrames(channels, width)
        self.embed_positions = _SoundPlaces(width)

    def forward(self, samples_BL: Tensor) -> Tensor:
        """(B, N, C) of normalised samples (B, L) at 16 kHz."""
        frames_BTC = self.embed_audios(samples_BL)
        x_BNC = with_class_token(self.cls_embedding, frames_BTC)
        return x_BNC + with_class_token(self.cls_pos_embed, self.embed_positions(frames_BTC))


class _SoundFrames(nn.Module):
    """Convolutions, each with a norm over channels and a GELU; then a norm and a linear layer."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self._convolutions = [
            nn.Conv1d(channels if number else 1, channels, kernel, stride=stride, bias=False)
            for number, (kernel, stride) in enumerate(SOUND_LAYERS)
        ]
        self._norms = [nn.LayerNorm(channels, eps=EPS) for _ in SOUND_LAYERS]
        layers = nn.Module()
        layers.conv_layers = nn.ModuleList(
            nn.ModuleDict({"0": convolution, "2": nn.ModuleDict({"1": norm})})
            for convolution, norm in zip(self._convolutions, self._norms, strict=True)
        )
        norm, project = nn.LayerNorm(channels, eps=EPS), nn.Linear(channels, width)
        for name, part in (("0", layers), ("2", norm), ("3", project)):
            self.add_module(name, part)
        # In lists: they are registered under their published names.
        self._end = [norm, project]

    def forward(self, samples_BL: Tensor) -> Tensor:
        x_BCT = samples_BL[:, None]
        for convolution, norm in zip(self._convolutions, self._norms, strict=True):
            x_BCT = F.gelu(norm(convolution(x_BCT).transpose(1, 2))).transpose(1, 2)
        x_BTC = x_BCT.transpose(1, 2)
        for part in self._end:
            x_BTC = part(x_BTC)
        return x_BTC


class _SoundPlaces(nn.Module):
    """Position of a frame, from its neighbours: convolutions, each with a norm without parameters and a GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [
            nn.Conv1d(width, width, PLACE_KERNEL, padding=PLACE_KERNEL // 2, groups=POSITION_GROUPS)
            for _ in range(PLACE_LAYERS)
        ]
        for number, layer in enumerate(layers, start=1):
            self.add_module(str(number), nn.ModuleDict({"0": layer}))
        self._layers = layers

    def forward(self, x_BTC: Tensor) -> Tensor:
        for layer in self._layers:
            x_BTC = layer(x_BTC.transpose(1, 2)).transpose(1, 2)
            x_BTC = F.gelu(F.layer_norm(x_BTC, x_BTC.shape[-1:], eps=EPS))
        return x_BTC


class _ChannelNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        made: Tensor = self.layer_norm(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return made


class Attention(nn.Module):
    """Multi-head attention with a norm on the joined heads before the last linear layer; keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln = nn.LayerNorm(width, eps=EPS)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor, bias_1ANN: Tensor | None = None) -> Tensor:
        q_BANE, k_BANE, v_BANE = (
            heads_of(project(x_BNC), self.heads) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        y_BANE = F.scaled_dot_product_attention(q_BANE, k_BANE, v_BANE, attn_mask=bias_1ANN)
        made: Tensor = self.out_proj(self.ln(y_BANE.transpose(1, 2).flatten(2)))
        return made


class FeedForward(nn.Module):
    """A gated linear unit with GELU, a norm, a linear layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        gate, linear = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        norm, out = nn.LayerNorm(hidden, eps=EPS), nn.Linear(hidden, width)
        for name, part in (("0", nn.ModuleDict({"wi_0": gate, "wi_1": linear})), ("2", norm), ("3", out)):
            self.add_module(name, part)
        self._parts = [gate, linear, norm, out]

    def forward(self, x: Tensor) -> Tensor:
        gate, linear, norm, out = self._parts
        made: Tensor = out(norm(F.gelu(gate(x)) * linear(x)))
        return made


def patches(width: int) -> nn.Sequential:
    """Images (B, 3, 16 P, 16 P) to (B, C, P, P) by three convolutions; keys of `embed_images`."""
    inner = width // 4
    return nn.Sequential(
        nn.Conv2d(3, inner, 4, stride=4),
        _ChannelNorm(inner),
        nn.GELU(),
        nn.Conv2d(inner, inner, 2, stride=2),
        _ChannelNorm(inner),
        nn.GELU(),
        nn.Conv2d(inner, width, 2, stride=2),
    )


def with_class_token(token_11C: Tensor, x_BNC: Tensor) -> Tensor:
    """A token in front of each sequence."""
    return torch.cat([token_11C.expand(len(x_BNC), -1, -1).to(x_BNC.dtype), x_BNC], dim=1)


def stretched(positions_NC: Tensor, side: int) -> Tensor:
    """An image's learnt position embeddings, class token first, for P = `side`."""
    own = math.isqrt(len(positions_NC) - 1)
    if own == side:
        return positions_NC
    grid = positions_NC[1:].reshape(1, own, own, -1).permute(0, 3, 1, 2).float()
    resized = F.interpolate(grid, size=(side, side), mode="bicubic").to(positions_NC.dtype)
    return torch.cat([positions_NC[:1], resized[0].flatten(1).T])


def heads_of(x_BNC: Tensor, heads: int) -> Tensor:
    """(B, A, N, E): heads apart."""
    return x_BNC.reshape(*x_BNC.shape[:2], heads, -1).transpose(1, 2)


def _with_class(buckets_NN: Tensor, rows: int) -> Tensor:
    buckets_NN[0, :] = rows - 3
    buckets_NN[:, 0] = rows - 2
    buckets_NN[0, 0] = rows - 1
    return buckets_NN
