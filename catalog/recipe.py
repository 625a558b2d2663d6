"""A recipe: all that decides a feature's value. Two equal recipes give equal features; a changed one has another
fingerprint.

`name` is how people speak of it and is left out of the fingerprint; everything else is in it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from catalog.fingerprint import LATER, canonical_json, fingerprint, plain
from catalog.grid import GridRule, exact_seconds, need_exact

Scalar = str | int | float | bool | None

ABSENT = "(absent)"  # in `Recipe.differences`: one of the two has no such setting

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class VideoSampling:
    """Which frames an encoder sees, and at what size.

    Attributes:
        frames_per_segment: P; frame j of a segment is the one shown at `start + (j + phase) * window / P`.
        frames_after: that many frames more, at the same step beyond the segment's end: P flows need P + 1 frames.
        phase: 1/2 takes the middle of each of the P slots, 0 its beginning.
        clip_s: where given, frames come in pairs instead: the first and the last to begin within each of P / 2 clips of
            this many seconds, spread evenly over the segment (up to the video track's end).
        height_px, width_px: the encoder's input size.
        fit: "stretch" resizes both sides; "crop" resizes the short side to `short_side_px` and cuts the centre;
            "three_crops" resizes the short side to `width_px` and cuts three squares at the beginning, the middle and
            the end of the long side, one below the other: `height_px` is 3 * `width_px`; "whole" resizes the short
            side to `short_side_px` and cuts nothing (but what passes 4 times the short side), so that the encoder cuts
            its `height_px` x `width_px` out of what it has made of the whole.
        short_side_px: with "crop" and "whole" only; None means the larger of height_px and width_px.
        interpolation: a Pillow filter ("area" is its box filter), to uint8; or, with "_tensor", as torch's
            `interpolate` without antialiasing, to float32 in units of 1/255 that are neither rounded nor clipped.
    """

    frames_per_segment: int
    frames_after: int = field(default=0, metadata={LATER: True})
    height_px: int
    width_px: int
    phase: Fraction = Fraction(1, 2)
    clip_s: Fraction | None = field(default=None, metadata={LATER: True})
    fit: Literal["stretch", "crop", "three_crops", "whole"] = "crop"
    short_side_px: int | None = None
    interpolation: Literal["nearest", "area", "bilinear", "bicubic", "lanczos", "bilinear_tensor", "bicubic_tensor"] = (
        "bicubic"
    )

    def __post_init__(self) -> None:
        if min(self.frames_per_segment, self.height_px, self.width_px) < 1:
            raise ValueError(f"video sampling needs whole numbers of at least 1, got {self}")
        need_exact(self, "phase")
        if not 0 <= self.phase <= 1:
            raise ValueError(f"video.phase must lie in [0, 1], got {self.phase}")
        if self.clip_s is not None:
            need_exact(self, "clip_s")
            if self.clip_s <= 0 or self.frames_per_segment % 2 or self.frames_per_segment < 4:
                raise ValueError(f"video.clip_s must be above 0 and go with 4, 6, 8 ... frames_per_segment, got {self}")
            if self.phase != Fraction(1, 2):
                raise ValueError(f"video.phase has no meaning beside video.clip_s, got {self.phase}")
        if self.frames_after < 0 or (self.frames_after and self.clip_s is not None):
            raise ValueError(f"video.frames_after must be 0 or more, and 0 beside video.clip_s, got {self}")
        if self.fit == "three_crops" and self.height_px != 3 * self.width_px:
            raise ValueError(f"video.fit='three_crops' needs height_px of 3 * width_px, got {self}")
        if self.short_side_px is not None and (
            self.fit not in ("crop", "whole") or self.short_side_px < max(self.height_px, self.width_px)
        ):
            raise ValueError(f"video.short_side_px goes with fit='crop' or 'whole' and covers the crop, got {self}")

    @property
    def is_float(self) -> bool:
        """Whether frames are float32 instead of uint8."""
        return self.interpolation.endswith("_tensor")

    @property
    def slots(self) -> int:
        """How many frames a segment comes with."""
        return self.frames_per_segment + self.frames_after

    @property
    def segment_bytes(self) -> int:
        """Of the frames of a segment; where they are whole, of 2:1 ones."""
        pixels = self.height_px * self.width_px
        if self.fit == "whole":
            pixels = 2 * (self.short_side_px or max(self.height_px, self.width_px)) ** 2
        return self.slots * pixels * 3 * (4 if self.is_float else 1)


@dataclass(frozen=True, kw_only=True)
class AudioSampling:
    """Which samples an encoder hears.

    Attributes:
        rate_hz: the rate that samples are resampled to.
        resampler: librosa's `res_type` ("kaiser_best" is resampy's), or "sinc_hann", torchaudio's default; part of a
            feature's identity.
        channels: what becomes the one channel, before resampling: the "mean" of all, or the "first".
        context_s: audio given to the encoder on both sides of each segment, beyond the window.
        min_coverage: a segment whose window holds a smaller share of real samples has no audio feature (NaN).
    """

    rate_hz: int
    resampler: Literal["soxr_vhq", "soxr_hq", "soxr_mq", "kaiser_best", "sinc_hann"] = "soxr_hq"
    channels: Literal["mean", "first"] = field(default="mean", metadata={LATER: True})
    context_s: Fraction = Fraction(0)
    min_coverage: Fraction = Fraction(1, 10)

    def __post_init__(self) -> None:
        need_exact(self, "context_s", "min_coverage")
        if self.rate_hz < 1000:
            raise ValueError(f"audio.rate_hz must be at least 1000, got {self.rate_hz}")
        if self.context_s < 0 or not 0 < self.min_coverage <= 1:
            raise ValueError(f"audio needs context_s of at least 0 and min_coverage in (0, 1], got {self}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How features are made.

    Attributes:
        name: the preset's name, or the user's (`--as`); a group of the store is named so.
        encoder: file name of the plug-in in `pipeline/encoders`.
        revision: raised by the encoder's author whenever its code changes a value.
        grid: durations to segments.
        video, audio: what the encoder takes; None where it has no such tower.
        precision: the arithmetic of the forward pass.
        storage: the dtype in the store.
        weights_sha256: of the checkpoint file; None for an encoder without weights.
        settings: the encoder's own knobs.
    """

    name: str
    encoder: str
    grid: GridRule
    video: VideoSampling | None
    audio: AudioSampling | None
    revision: int = 1
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    storage: Literal["float32", "float16"] = "float32"
    weights_sha256: str | None = None
    settings: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"a recipe's name needs letters, digits, '.', '_' and '-' (at most 100), got {self.name!r}"
            )
        if self.video is None and self.audio is None:
            raise ValueError(f"recipe {self.name}: needs video, audio or both")
        for key, value in self.settings.items():
            if not isinstance(key, str) or not (value is None or isinstance(value, bool | int | float | str)):
                raise ValueError(
                    f"recipe {self.name}: settings must be numbers, texts and booleans, got {key!r}: {value!r}"
                )
        plain(self.settings)  # refuses NaN and infinity
        # A private, read-only copy: whoever built the mapping cannot change the recipe's identity afterwards.
        object.__setattr__(self, "settings", types.MappingProxyType(dict(self.settings)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy does not pickle; the JSON form is exact, so workers rebuild from it.
        return (Recipe.from_json, (self.to_json(),))

    def __eq__(self, other: object) -> bool:
        # By canonical JSON, as the fingerprint is: the settings 1, 1.0 and True are equal in Python and three recipes.
        if not isinstance(other, Recipe):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        """Canonical JSON, name included; `from_json` gives an equal recipe back."""
        return canonical_json(self)

    def fingerprint(self) -> str:
        """SHA-256 of everything but the name."""
        settings = plain(self, canonical=True)
        del settings["name"]
        return fingerprint(settings)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` wrote.

        Raises:
            ValueError: not JSON, a field is unknown, missing or of the wrong type; the message names it.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a recipe must be JSON: {error}") from error
        recipe = _build(cls, value, "recipe")
        assert isinstance(recipe, cls)
        return recipe

    def changed(self, changes: Mapping[str, str]) -> Recipe:
        """This recipe with settings replaced, as the command line's `--set grid.hop_s=1/2` does.

        Args:
            changes: dotted field to its new text; `settings.KEY` takes JSON scalars or bare words.

        Raises:
            ValueError: no such field, or the text is not of its type; the message names the field.
        """
        value = plain(self)
        for path, text in changes.items():
            *groups, last = path.split(".")
            place = value
            for group in groups:
                inner = place.get(group) if isinstance(place, dict) else None
                if not isinstance(inner, dict):
                    raise ValueError(
                        f"recipe {self.name} has no setting {path!r}; it has {', '.join(_paths(plain(self)))}"
                    )
                place = inner
            if last not in place and groups != ["settings"]:
                raise ValueError(f"recipe {self.name} has no setting {path!r}; it has {', '.join(_paths(plain(self)))}")
            # Only `settings` needs JSON's types; everywhere else the field says what the text is.
            place[last] = _scalar(text) if groups == ["settings"] else _plain_of(path, text)
        recipe = _build(Recipe, value, "recipe")
        assert isinstance(recipe, Recipe)
        return recipe

    def differences(self, other: Recipe) -> list[tuple[str, object, object]]:
        """(field, here, there) for each setting that differs, names left out."""
        here, there = plain(self), plain(other)
        del here["name"], there["name"]
        return list(_differences(here, there, ""))


def _differences(here: object, there: object, path: str) -> Iterator[tuple[str, object, object]]:
    if isinstance(here, dict) and isinstance(there, dict):
        for key in sorted(here.keys() | there.keys()):
            inner = f"{path}.{key}" if path else key
            if key in here and key in there:
                yield from _differences(here[key], there[key], inner)
            else:
                yield inner, here.get(key, ABSENT), there.get(key, ABSENT)
    # Compared as the fingerprint is, by JSON: 1 is not True.
    elif canonical_json(here) != canonical_json(there):
        yield path, here, there


def _leaves(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {path: value}
    leaves: dict[str, object] = {}
    for key, inner in value.items():
        leaves |= _leaves(inner, f"{path}.{key}" if path else key)
    return leaves


def _paths(value: object) -> list[str]:
    return sorted(_leaves(value))


def _plain_of(path: str, text: str) -> Scalar:
    """The plain form of a field's new text: "16" of a whole number is 16, "none" of an optional one is None."""
    hint: Any = Recipe
    for name in path.split("."):
        hint = typing.get_type_hints(next(h for h in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(h)))[
            name
        ]
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    if int in options:
        return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else text
    return text


def _scalar(text: str) -> Scalar:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if value is None or isinstance(value, bool | int | float | str) else text


def _build(kind: Any, value: object, where: str) -> object:
    """A dataclass from its plain form; strict about names and types, since stores may come from others."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: needs an object, got {value!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            raise ValueError(f"{where}: unknown field {key!r}; known are {', '.join(fields)}")
    arguments = {}
    for name, spec in fields.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], f"{where}.{name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}: field {name!r} is missing")
    built: object = kind(**arguments)
    return built


def _convert(hint: Any, value: object, where: str) -> object:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        (hint,) = (option for option in options if option is not type(None))
        return _convert(hint, value, where)
    if origin is Literal:
        if value not in options:
            raise ValueError(f"{where}: must be one of {', '.join(map(str, options))}, got {value!r}")
        return value
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if hint is Fraction:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{where}: needs a number, got {value!r}")
        try:
            return exact_seconds(value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{where}: needs a whole number, got {value!r}")
        return value
    if hint is str:
        if not isinstance(value, str):
            raise ValueError(f"{where}: needs text, got {value!r}")
        return value
    if not isinstance(value, dict) or not all(
        item is None or isinstance(item, bool | int | float | str) for item in value.values()
    ):
        raise ValueError(f"{where}: needs an object of numbers, texts and booleans, got {value!r}")
    return value
