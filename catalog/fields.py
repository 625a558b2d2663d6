"""Types of settings' fields, and their check by pydantic, with messages that name field, need and value.

`check_fields` holds a frozen dataclass to its own type hints: `Literal`, bounds in `Annotated`, no bool for a number.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Annotated, Any

from pydantic import Field, InstanceOf, TypeAdapter, ValidationError

# Far above any network's; numbers that torch could not even name a shape with come from damaged files.
MAX_SIZE = 2**24

Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
EvenSize = Annotated[int, Field(ge=2, le=MAX_SIZE, multiple_of=2)]
Count = Annotated[int, Field(ge=0, le=MAX_SIZE)]
Share = Annotated[float, Field(ge=0, le=1)]
# Of what is left out by chance: all of it is never.
Dropout = Annotated[float, Field(ge=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Not `str`: a path may hold bytes that are no UTF-8, which pydantic's texts refuse.
Text = InstanceOf[str]

# Of a value, in a message.
_SHOWN = 200

# By pydantic's type of error; of the others its own message reads well.
_NEEDED = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "dict_type": "an object",
    "is_instance_of": "text",
    "list_type": "a list",
    "missing": "given",
    "model_type": "an object",
    "string_type": "text",
    "tuple_type": "a list",
}


def needed(error: ValidationError) -> str:
    """What the first field with an error must be."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "literal_error":
        expected: str = first["ctx"]["expected"]
        return "one of " + expected.replace(" or ", ", ").replace("'", "")
    if first["type"] == "value_error":  # of a validator of ours, which says what is needed
        return str(first["ctx"]["error"])
    known = _NEEDED.get(first["type"])
    if known is None:
        return first["msg"].removeprefix("Input should be ")
    bounds = first.get("ctx", {})
    return known.format(**{k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in bounds.items()})


def check_fields(settings: Any) -> None:
    """Hold every field of a dataclass to its type hint.

    Raises:
        ValueError: one does not fit; names it.
    """
    for field in dataclasses.fields(settings):
        check_field(type(settings), field.name, getattr(settings, field.name))


def check_field(kind: type, name: str, value: object) -> None:
    """Hold a value to the type hint of the field `name` of the dataclass `kind`.

    Raises:
        ValueError: it does not fit.
    """
    try:
        _adapters(kind)[name].validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([name, *(part for part in map(str, first["loc"]) if "[" not in part)])
        raise ValueError(f"{where} must be {needed(error)}, got {repr(first['input'])[:_SHOWN]}") from None


def has_type(kind: type, name: str, value: object) -> bool:
    """Whether a value is of the type of the field `name` of the dataclass `kind`, within its bounds or not."""
    try:
        _adapters(kind)[name].validate_python(value, strict=True)
    except ValidationError as error:
        return not any(e["type"].endswith("_type") or e["type"] == "literal_error" for e in error.errors())
    return True


@functools.cache
def _adapters(kind: type) -> dict[str, TypeAdapter[Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(kind)}
