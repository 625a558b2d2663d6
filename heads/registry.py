"""Heads by file name: `heads/models/NAME.py`, or a folder `NAME/` with `head.py`, is the head NAME.

What such a file has: `heads.spec`. Here heads are found, configured, built and restored, and configs are read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from catalog.fields import check_field, has_type
from catalog.plugins import Plugins
from heads.spec import TEXTS, Head, HeadConfig, HeadInput, HeadSpec, Scalar

HEADS = Plugins(package="heads.models", part="head", noun="head")


class Plugin(Protocol):
    """A file of `heads/models`."""

    SPEC: HeadSpec
    Head: type[Head]


def names() -> tuple[str, ...]:
    """The heads there are, sorted."""
    return HEADS.names()


def plugin(name: str) -> Plugin:
    """The head's module.

    Raises:
        ValueError: there is no head of this name.
    """
    return typing.cast(Plugin, HEADS.load(name))


def spec(name: str) -> HeadSpec:
    """What is known of a head before it is built.

    Raises:
        ValueError: there is no head of this name.
    """
    return plugin(name).SPEC


def configure(name: str, given: HeadInput) -> HeadConfig:
    """The head's published config for such an input; see `heads.spec.HeadConfig.for_features`."""
    return plugin(name).Head.Config.for_features(given)


def read_config(name: str, fields: Mapping[str, object]) -> HeadConfig:
    """The head's config from JSON fields.

    Raises:
        ValueError: a field is unknown, missing, of the wrong type or out of range.
    """
    kind = plugin(name).Head.Config
    known = {field.name: field for field in dataclasses.fields(kind)}
    for key in fields:
        if key not in known:
            raise ValueError(f"config of head {name}: unknown field {key!r}; known are {', '.join(known)}")
    for key, field in known.items():
        if key not in fields and field.default is dataclasses.MISSING:
            raise ValueError(f"config of head {name}: field {key!r} is missing")
    try:
        return kind(**fields)
    except ValueError as error:
        raise ValueError(f"config of head {name}: {error}") from error


def parse_field(name: str, key: str, text: str) -> Scalar:
    """A field of the head's config from a text: true, false, none, a number, or the text itself.

    Raises:
        ValueError: no such field, or a value of another kind than the field's.
    """
    kind = typing.cast(type, plugin(name).Head.Config)
    known = [field.name for field in dataclasses.fields(kind)]
    if key not in known:
        raise ValueError(f"config of head {name}: unknown field {key!r}; known are {', '.join(known)}")
    readings: list[Scalar] = [text]
    for number in (int, float):
        with contextlib.suppress(ValueError):
            readings.append(number(text))
    readings += [value for word, value in (("true", True), ("false", False), ("none", None)) if text.lower() == word]
    for value in reversed(readings):
        if has_type(kind, key, value):
            return value
    try:
        check_field(kind, key, text)
    except ValueError as error:
        raise ValueError(f"config of head {name}: {error}") from error
    return text


def build(name: str, config: HeadConfig, *, seed: int = 0) -> Head:
    """A head with fresh parameters that depend on `seed` alone; torch's global generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return plugin(name).Head(config)


def restore(name: str, config: HeadConfig, state: Mapping[str, Tensor]) -> Head:
    """A head with the parameters of a checkpoint, ready to predict.

    A head of class texts gets those of the checkpoint, and a config of their number, whatever `config` says.

    Raises:
        ValueError: a tensor is missing, not wanted, of another shape or dtype, or holds NaN or infinity.
    """
    texts = state.get(TEXTS)
    if spec(name).needs_texts and texts is not None and texts.ndim == 2:
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
