"""Fields held to their types: what fits, and what the message says of what does not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from catalog.fields import (
    Count,
    Dropout,
    EvenSize,
    Finite,
    Positive,
    Share,
    Size,
    Text,
    Weight,
    check_field,
    check_fields,
    has_type,
    needed,
)


@dataclass(frozen=True)
class Settings:
    size: Size = 1
    even: EvenSize = 2
    count: Count = 0
    share: Share = 0.5
    dropout: Dropout = 0.0
    finite: Finite = -1.0
    weight: Weight = 0.0
    positive: Positive | None = None
    choice: Literal["near", "far"] = "near"
    flag: bool = False
    name: str = ""
    sizes: tuple[Size, Size] = (1, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": 2**24, "count": 2**24, "even": 4},
        {"share": 0, "dropout": 0.999, "weight": 7, "positive": 1e-9},  # a whole number is a number
        {"share": 1, "finite": -1e300, "choice": "far", "flag": True, "name": "x"},
    ],
)
def test_fields_that_fit_pass(changes: dict[str, Any]) -> None:
    check_fields(replace(Settings(), **changes))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("size", 0, "size must be at least 1, got 0"),
        ("size", 2**24 + 1, "size must be at most 16777216, got 16777217"),
        ("size", 1.0, "size must be a whole number, got 1.0"),
        ("size", True, "size must be a whole number, got True"),
        ("size", "1", "size must be a whole number, got '1'"),
        ("size", None, "size must be a whole number, got None"),
        ("even", 3, "even must be a multiple of 2, got 3"),
        ("count", -1, "count must be at least 0, got -1"),
        ("share", 1.1, "share must be at most 1"),
        ("share", math.nan, "share must be at most 1, got nan"),
        ("dropout", 1.0, "dropout must be less than 1"),
        ("dropout", math.nan, "dropout must be less than 1, got nan"),
        ("finite", math.inf, "finite must be a finite number, got inf"),
        ("finite", "much", "finite must be a number, got 'much'"),
        ("weight", -0.1, "weight must be at least 0"),
        ("positive", 0.0, "positive must be more than 0"),
        ("choice", "off", "choice must be one of near, far, got 'off'"),
        ("choice", ["near"], "choice must be one of near, far"),
        ("flag", 1, "flag must be true or false, got 1"),
        ("name", 3, "name must be text, got 3"),
        ("sizes", (1, 0), r"sizes\.1 must be at least 1, got 0"),
    ],
)
def test_field_that_does_not_fit_is_named_with_what_it_needs(name: str, value: object, message: str) -> None:
    changes: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=message):
        check_fields(replace(Settings(), **changes))
    with pytest.raises(ValueError, match=message):
        check_field(Settings, name, value)


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [("size", 0, True), ("size", 1.0, False), ("share", 7, True), ("choice", "off", False), ("name", 1, False)],
)
def test_has_type_leaves_bounds_aside(name: str, value: object, fits: bool) -> None:
    assert has_type(Settings, name, value) == fits


class Record(BaseModel, strict=True):
    path: Text
    parts: list[Text]
    more: dict[Text, int]


@pytest.mark.parametrize(
    ("changes", "need"),
    [
        ({"path": 3}, "text"),
        ({"parts": "a"}, "a list"),
        ({"more": []}, "an object"),
        ({"more": {"a": "1"}}, "a whole number"),
        ({"path": None}, "text"),
    ],
)
def test_needed_of_a_record(changes: dict[str, Any], need: str) -> None:
    right = {"path": "/of/bytes/\udcff", "parts": [], "more": {}}
    Record.model_validate(right)
    with pytest.raises(ValidationError) as caught:
        Record.model_validate(right | changes)
    assert needed(caught.value) == need
    with pytest.raises(ValidationError) as caught:
        Record.model_validate({})
    assert needed(caught.value) == "given"
