"""ONE-PEACE's branches for text, images and audio: one stem each, one transformer, into one space of 1536 dimensions.

A layer's attention is shared by the modalities, its feed-forward part is not. A `OnePeace` is one branch under the
names of one-peace.pt; `branch` takes it out of a published state dict of any of the layouts:

    one-peace.pt            all branches, one table of biases for all layers; class token -> projection -> unit vector
    one-peace-vision.pkl    the image branch without its last norm and projection, under shorter names
    finetune_vggsound.pt    the audio branch with a table a layer, and a classifier

All LayerNorms have eps 1e-5, GELU is exact. `networks/one_peace_video.py` is the tower fine-tuned on Kinetics-400.

Shape suffixes: B batch, N tokens (class token first), C width, A heads, E width of a head, D features, K classes.

Source: Wang et al., ONE-PEACE: Exploring One General Representation Model Toward Unlimited Modalities, 2023
(arXiv 2305.11172); github.com/OFA-Sys/ONE-PEACE.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from catalog.fields import Size, check_fields
from pipeline.networks.one_peace_layers import (
    EPS,
    MAX_TOKENS,
    PADDING,
    POSITION_GROUPS,
    Attention,
    AudioStem,
    FeedForward,
    ImageStem,
    Stem,
    TextStem,
    check_buckets,
    heads_of,
    image_buckets,
    image_reach,
    image_rows,
    token_buckets,
)

Modality = Literal["text", "image", "audio"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "audio")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one branch; the defaults are those of one-peace.pt.

    Attributes:
        modality: which.
        width: C. heads: A. layers: of the transformer. hidden: of the feed-forward parts.
        tables: of biases; 1 for all layers, or one a layer.
        rows: of a table.
        vocabulary, positions: of text.
        side, reach: patches a side that an image's position embeddings and biases are for.
        channels: of the convolutions that audio begins with.
        embedding: D of the projection; None without one.
        has_norm: a norm at the transformer's end.
        classes, classifier_hidden: K and its inner width; None without a classifier.
    """

    modality: Modality
    width: Annotated[Size, Field(multiple_of=POSITION_GROUPS)] = 1536
    heads: Size = 24
    layers: Size = 40
    hidden: Size = 6144
    tables: Size = 1
    rows: Annotated[int, Field(ge=8)]
    vocabulary: Size = 50264
    positions: Size = 514
    side: Size = 16
    reach: Size = 16
    channels: Size = 512
    embedding: Size | None = 1536
    has_norm: bool = True
    classes: Size | None = None
    classifier_hidden: Size | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % self.heads:
            raise ValueError(f"ONE-PEACE's width must divide by its heads, got {self}")
        if self.tables not in (1, self.layers):
            raise ValueError(f"ONE-PEACE has one table of biases, or one a layer, got {self}")
        if self.modality == "image" and self.rows != image_rows(self.reach):
            raise ValueError(f"a table of biases of {self.rows} rows fits no {self.modality} of ONE-PEACE, got {self}")
        if (self.classes is None) != (self.classifier_hidden is None):
            raise ValueError(f"ONE-PEACE's classifier needs classes and classifier_hidden, got {self}")

    @classmethod
    def published(cls, modality: Modality) -> Config:
        """The sizes of one-peace.pt."""
        return cls(modality=modality, rows={"text": 514, "image": image_rows(16), "audio": 1026}[modality])

    @classmethod
    def of(cls, state: Mapping[str, Tensor], modality: Modality) -> Config:
        """The sizes that a branch's state dict, as `branch` gives it, speaks of.

        Raises:
            ValueError: it is not that branch's.
        """
        stem, body = f"encoder_wrapper.{modality}_adapter.", "encoder_wrapper.fusion_model."
        numbers = [int(found[1]) for key in state if (found := re.match(re.escape(body) + r"layers\.(\d+)\.", key))]
        tables = sum(key.startswith(f"{stem}rel_pos_table_list.") for key in state)
        try:
            if not numbers:
                raise KeyError(f"{body}layers")
            rows, heads = state[f"{stem}rel_pos_table_list.0.weight"].shape
            more: dict[str, int] = {}
            if modality == "text":
                more["vocabulary"] = state[f"{stem}embed_tokens.weight"].shape[0]
                more["positions"] = state[f"{stem}embed_positions.weight"].shape[0]
            elif modality == "image":
                more["side"] = math.isqrt(state[f"{stem}pos_embed"].shape[0] - 1)
                more["reach"] = image_reach(int(rows))
            else:
                more["channels"] = state[f"{stem}embed_audios.2.weight"].shape[0]
            projection = state.get(f"{modality}_proj.weight")
            classifier = state.get("classify_head.classifier.3.weight")
            return cls(
                modality=modality,
                width=int(state[f"{stem}cls_embedding"].shape[2]),
                heads=int(heads),
                layers=1 + max(numbers),
                hidden=int(state[f"{body}layers.0.{modality}_ffn.0.wi_0.weight"].shape[0]),
                tables=tables,
                rows=int(rows),
                embedding=None if projection is None else int(projection.shape[0]),
                has_norm=f"{body}{modality}_layer_norm.weight" in state,
                classes=None if classifier is None else int(classifier.shape[0]),
                classifier_hidden=None if classifier is None else int(classifier.shape[1]),
                **more,
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"not the state dict of a ONE-PEACE with a branch for {modality}: {error}") from error


def branch(state: Mapping[str, Tensor], modality: Modality) -> dict[str, Tensor]:
    """One branch of a published state dict, under the names of one-peace.pt.

    The other branches and what served pre-training alone are left out. Constants that a file may lack (buckets of
    distances, position indices, fairseq's version) are put in, and the older name of the table of biases is changed,
    as upstream does when it loads.

    Raises:
        ValueError: the file's buckets point outside its table.
    """
    foreign = tuple(f"{other}_" for other in MODALITIES if other != modality)
    spent = ("decoder_", *(f"{own}_mask_" for own in MODALITIES))
    own = {}
    for key, tensor in state.items():
        if any(other in key for other in foreign) or key.startswith(spent):
            continue
        key = re.sub(rf"^{modality}_adapter\.", f"encoder_wrapper.{modality}_adapter.", key)
        key = re.sub(r"^encoder\.layers\.", "encoder_wrapper.fusion_model.layers.", key)
        own[key.replace("_adapter.rel_pos_table.weight", "_adapter.rel_pos_table_list.0.weight")] = tensor
    stem = f"encoder_wrapper.{modality}_adapter."
    table = own.get(f"{stem}rel_pos_table_list.0.weight")
    if table is None or table.ndim != 2 or table.is_meta:
        return own
    rows = len(table)
    if f"{stem}rp_bucket" not in own:
        own[f"{stem}rp_bucket"] = image_buckets(image_reach(rows)) if modality == "image" else token_buckets(rows)
    check_buckets(own[f"{stem}rp_bucket"], rows)
    if modality == "image" and f"{stem}pos_embed" in own:
        own.setdefault(f"{stem}position_idx", torch.arange(len(own[f"{stem}pos_embed"])))
    if f"encoder_wrapper.fusion_model.{modality}_layer_norm.weight" in own or "classify_head.norm.weight" in own:
        own.setdefault("encoder_wrapper.fusion_model.version", torch.tensor([3.0]))
    return own


class OnePeace(nn.Module):
    """One branch."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        stem, body = _stem(config), nn.Module()
        body.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        norm = nn.LayerNorm(config.width, eps=EPS) if config.has_norm else nn.Identity()
        self.encoder_wrapper = nn.ModuleDict({f"{config.modality}_adapter": stem, "fusion_model": body})
        if config.has_norm:
            body.add_module(f"{config.modality}_layer_norm", norm)
        if config.has_norm or config.classes is not None:
            body.register_buffer("version", torch.tensor([3.0]))
        if config.embedding is not None:
            self.add_module(f"{config.modality}_proj", nn.Linear(config.width, config.embedding))
            self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.classify_head = _Classifier(config) if config.classes is not None else None
        # In lists: they are registered under their published names already.
        self._stem, self._layers, self._norm = [stem], [body.layers], [norm]

    def forward(self, x: Tensor, padding_BN: Tensor | None = None) -> Tensor:
        """Unit vectors, float (B, D).

        Args:
            x, padding_BN: as `tokens` takes them.
        """
        return F.normalize(self.project(self.tokens(x, padding_BN)[:, 0]).float(), dim=-1)

    def project(self, class_BC: Tensor) -> Tensor:
        """(B, D) of class tokens, not normalised.

        Raises:
            ValueError: the file has no projection.
        """
        if self.config.embedding is None:
            raise ValueError("this ONE-PEACE has no projection; one-peace.pt does")
        made: Tensor = self.get_submodule(f"{self.config.modality}_proj")(class_BC)
        return made

    def classify(self, x: Tensor, padding_BN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pooled features (B, C) and logits (B, K).

        Raises:
            ValueError: the file has no classifier.
        """
        if self.classify_head is None:
            raise ValueError("this ONE-PEACE has no classifier; finetune_vggsound.pt does")
        x_BNC = self.tokens(x, padding_BN)
        made: tuple[Tensor, Tensor] = self.classify_head(
            x_BNC[:, 1:], None if padding_BN is None else padding_BN[:, 1:]
        )
        return made

    def tokens(self, x: Tensor, padding_BN: Tensor | None = None) -> Tensor:
        """What the transformer ends with, (B, N, C), class token first.

        Args:
            x: token numbers int64 (B, N - 1), padded with 1; images (B, 3, 16 P, 16 P) of P patches a side, with
                CLIP's mean and deviation; or samples (B, L) at 16 kHz, of mean 0 and variance 1.
            padding_BN: of audio, True where a token is of the padding behind its end. It is kept from attention, but
                the convolutions see it: pad to one length only what may be a little unlike what it is alone.
        """
        stem = self._stem[0]
        x_BNC = stem(x)
        if self.config.modality == "text":
            padding_BN = F.pad(x == PADDING, (1, 0))
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x_BNC.dtype
        biases = [bias.to(dtype) for bias in stem.biases(x_BNC.shape[1])]
        if padding_BN is not None and bool(padding_BN.any()):
            x_BNC = x_BNC * ~padding_BN[:, :, None]
            biases = [bias.masked_fill(padding_BN[:, None, None, :], -torch.inf) for bias in biases]
        for number, layer in enumerate(self._layers[0]):
            x_BNC = layer(x_BNC, biases[number if len(biases) > 1 else 0])
        made: Tensor = self._norm[0](x_BNC)
        return made


class Layer(nn.Module):
    """x + gamma_1 attention(norm x), then x + gamma_2 feed-forward(norm x)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.zeros(config.width))
        self.gamma_2 = nn.Parameter(torch.zeros(config.width))
        self.self_attn = Attention(config.width, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.width, eps=EPS)
        ffn = FeedForward(config.width, config.hidden)
        self.add_module(f"{config.modality}_ffn", ffn)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=EPS)
        self._ffn = [ffn]

    def forward(self, x_BNC: Tensor, bias_1ANN: Tensor) -> Tensor:
        x_BNC = x_BNC + self.gamma_1 * self.self_attn(self.self_attn_layer_norm(x_BNC), bias_1ANN)
        made: Tensor = x_BNC + self.gamma_2 * self._ffn[0](self.final_layer_norm(x_BNC))
        return made


class _Classifier(nn.Module):
    """Pooled tokens, a norm, two layers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attn_pooling_func = _Pooling(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        hidden = config.classifier_hidden or config.width
        self.classifier = nn.Sequential(
            nn.Linear(config.width, hidden),
            nn.LayerNorm(hidden, eps=EPS),
            nn.GELU(),
            nn.Linear(hidden, config.classes or 1),
        )

    def forward(self, x_BNC: Tensor, padding_BN: Tensor | None) -> tuple[Tensor, Tensor]:
        pooled_BC = self.norm(self.attn_pooling_func(x_BNC, padding_BN))
        return pooled_BC, self.classifier(pooled_BC)


class _Pooling(nn.Module):
    """One learnt query looks at all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.zeros(1, 1, heads, width // heads))
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor, padding_BN: Tensor | None) -> Tensor:
        k_BANE, v_BANE = (heads_of(project(x_BNC), self.q.shape[2]) for project in (self.k_proj, self.v_proj))
        q_BA1E = self.q.transpose(1, 2).expand(len(x_BNC), -1, -1, -1).to(k_BANE.dtype)
        mask = None if padding_BN is None else ~padding_BN[:, None, None, :]
        # The query is learnt at its scale: not divided by the root of the heads' width, as the layers' are.
        y_BA1E = F.scaled_dot_product_attention(q_BA1E, k_BANE, v_BANE, attn_mask=mask, scale=1.0)
        made: Tensor = self.out_proj(y_BA1E.flatten(1))
        return made


def _stem(config: Config) -> Stem:
    sizes = {"tables": config.tables}
    if config.modality == "image":
        return ImageStem(config.width, config.heads, side=config.side, reach=config.reach, **sizes)
    sizes |= {"rows": config.rows, "max_tokens": MAX_TOKENS}
    if config.modality == "audio":
        return AudioStem(config.width, config.heads, channels=config.channels, **sizes)
    return TextStem(config.width, config.heads, vocabulary=config.vocabulary, positions=config.positions, **sizes)
