"""Settings to one hash, the same in every process and on every machine.

Identity is a hash of settings, so only values with one stable spelling are taken: `None`, booleans, integers,
finite floats, strings, `Fraction` (spelt "n/d"), tuples, lists, string-keyed mappings and dataclasses of these.
Anything else (a callable, a set, an array, NaN) raises: its spelling could differ between two processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

# In a dataclass field's metadata: the field came later, and what was made before it keeps its hash. While such a field
# has its default it is left out of the canonical form.
LATER = "left out of the canonical form at its default"


def plain(value: object, where: str = "settings", *, canonical: bool = False) -> Any:
    """The JSON form of `value`: mappings, lists, strings, numbers, booleans and None only.

    Args:
        canonical: leave `LATER` fields out where they have their default.

    Raises:
        TypeError: something in `value` has no stable form; the message names the place.
        ValueError: a float is not finite.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: a fingerprint needs finite numbers, got {value}")
        return value
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]", canonical=canonical) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: a fingerprint needs string keys, got {key!r}")
        return {key: plain(value[key], f"{where}.{key}", canonical=canonical) for key in sorted(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [
            f
            for f in dataclasses.fields(value)
            if not (canonical and LATER in f.metadata and getattr(value, f.name) == f.default)
        ]
        return {f.name: plain(getattr(value, f.name), f"{where}.{f.name}", canonical=canonical) for f in kept}
    raise TypeError(
        f"{where}: {type(value).__qualname__} has no stable form; "
        "use numbers, strings, fractions, tuples, string-keyed mappings or dataclasses of these"
    )


def canonical_json(value: object) -> str:
    """`value` as JSON with sorted keys, no white space and ASCII only: equal values, equal text."""
    return json.dumps(
        plain(value, canonical=True), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()
