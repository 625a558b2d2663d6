"""Heads by file name: `heads/models/NAME.py` is the head NAME.

Each file has `SUMMARY` (one line), `POOLS_PLACES` (may maps be averaged over their places while reading), `Head`
(a module with a frozen dataclass `Config` of plain fields,
`fit_statistics(visual, audio, visual_valid_R, audio_valid_R)` with all rows of the training split, (R, *shape), and the
flags of those that are used, and
`forward(visual, audio, mask_BT, visual_valid_BT, audio_valid_BT) -> logits_BTK`) and
`configure(visual_shape, audio_shape, num_classes, modality) -> Config`: `Config.for_features`, where the Config is a
`heads.blocks.feature_config.FeatureConfig`.

Where they apply:
    Head.loss(visual, audio, target, visual_valid_BT, audio_valid_BT) -> (sums_B, counts_B)   a loss of its own
    TRAINING         the published settings of its training, fields of `heads.training.settings.Settings`
    NEEDS_TEXTS      `Head.set_texts(texts_KD)` must be called first; the head keeps them as `texts`, a `ClassTexts`
    NEEDS_TRAINING   False without parameters: `avel train` evaluates it and writes the run
    ONE_LABEL        True of a head that is for data sets of one class a segment alone
    DENSE            True of a head that finds events with a start and an end of their own (`heads.dense.head`),
                     whose `forward` gives a `heads.dense.output.DenseOutput`
    Head.scalars() -> {name: number}                           what it tells of itself after an epoch, for the history
    Head.flags(as forward) -> event_BT | None                  segments it flags as events, where some of them may have
                                                               the background's class; for OV-AVEBench's F1 measures
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from catalog.plugins import Plugins

HEADS = Plugins(package="heads.models", part="head", noun="head")
Modality = Literal["both", "audio", "visual"]
# Of a head with class texts: the name of their features in its state.
TEXTS = "texts.texts_KD"
# What a config's fields hold.
Scalar = str | int | float | bool | None
MODALITIES: tuple[Modality, ...] = ("both", "audio", "visual")


class Plugin(Protocol):
    """What a file of `heads/models` offers."""

    SUMMARY: str
    POOLS_PLACES: bool
    Head: Any
    configure: Any


def names() -> tuple[str, ...]:
    """The heads there are, sorted."""
    return HEADS.names()


def plugin(name: str) -> Plugin:
    """The head's module.

    Raises:
        ValueError: there is no head of this name.
    """
    return typing.cast(Plugin, HEADS.load(name))


def is_dense(name: str) -> bool:
    """Does the head find events with a start and an end of their own, rather than score segments?"""
    return bool(getattr(plugin(name), "DENSE", False))


def read_config(name: str, fields: Mapping[str, object]) -> Any:
    """The head's config from JSON fields.

    Raises:
        ValueError: a field is unknown, missing, of the wrong type or out of range.
    """
    kind = plugin(name).Head.Config
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in fields:
        if key not in known:
            raise ValueError(f"config of head {name}: unknown field {key!r}; known are {', '.join(known)}")
    for key, field in known.items():
        if key not in fields:
            if field.default is dataclasses.MISSING:
                raise ValueError(f"config of head {name}: field {key!r} is missing")
        elif not _fits(hints[key], fields[key]):
            raise ValueError(f"config of head {name}: {key} needs {_spell(hints[key])}, got {fields[key]!r}")
    return kind(**fields)


def parse_field(name: str, key: str, text: str) -> Scalar:
    """A field of the head's config from a text: true, false, none, a number, or the text itself.

    Raises:
        ValueError: no such field, or a value of another kind than the field's.
    """
    hints = typing.get_type_hints(plugin(name).Head.Config)
    if key not in hints:
        raise ValueError(f"config of head {name}: unknown field {key!r}; known are {', '.join(hints)}")
    readings: list[Scalar] = [text]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            readings.append(kind(text))
    readings += [value for word, value in (("true", True), ("false", False), ("none", None)) if text.lower() == word]
    for value in reversed(readings):
        if _fits(hints[key], value):
            return value
    raise ValueError(f"config of head {name}: {key} needs {_spell(hints[key])}, got {text!r}")


def build(name: str, config: object, *, seed: int = 0) -> nn.Module:
    """A head with fresh parameters that depend on `seed` alone; torch's global generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head: nn.Module = plugin(name).Head(config)
    return head


@contextlib.contextmanager
def inference(head: nn.Module) -> Iterator[None]:
    """Without gradients and in evaluation mode; the head's mode is put back, whatever happens."""
    was_training = head.training
    head.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        head.train(was_training)


def restore(name: str, config: object, state: Mapping[str, Tensor]) -> nn.Module:
    """A head with the parameters of a checkpoint, ready to predict.

    A head of class texts gets those of the checkpoint, and a config of their number, whatever `config` says.

    Raises:
        ValueError: a tensor is missing, not wanted, of another shape or dtype, or holds NaN or infinity.
    """
    texts = state.get(TEXTS)
    if getattr(plugin(name), "NEEDS_TEXTS", False) and texts is not None and texts.ndim == 2:
        # A vocabulary is replaced as a whole, so a checkpoint may hold another than the head was configured for.
        config = dataclasses.replace(typing.cast(Any, config), num_classes=len(texts))
    with torch.device("meta"):  # shapes are compared before any memory is taken: a stranger's config may be huge
        wanted = plugin(name).Head(config).state_dict()
    if wanted.keys() != state.keys():
        odd = sorted(wanted.keys() ^ state.keys())
        raise ValueError(f"checkpoint of head {name}: parameters missing or not wanted: {', '.join(odd)}")
    for key, tensor in state.items():
        if tensor.shape != wanted[key].shape or tensor.dtype != wanted[key].dtype:
            raise ValueError(
                f"checkpoint of head {name}: {key} needs {tuple(wanted[key].shape)} {wanted[key].dtype}, "
                f"got {tuple(tensor.shape)} {tensor.dtype}"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"checkpoint of head {name}: {key} holds NaN or infinity")
    head = build(name, config)
    head.load_state_dict(dict(state))
    return head.eval()


def _fits(hint: Any, value: object) -> bool:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(option, value) for option in typing.get_args(hint))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return getattr(hint, "__name__", str(hint))
