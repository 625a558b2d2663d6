"""Settings to one hash: equal in every process, different for different settings, refused where it could not be so."""

from __future__ import annotations

import enum
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.fingerprint import canonical_json, fingerprint, plain

PROJECT = Path(__file__).resolve().parents[2]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
settings = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@dataclass(frozen=True)
class Inner:
    hop_s: Fraction
    names: tuple[str, ...]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    rate_hz: int


@given(settings)
def test_canonical_json_reads_back_as_the_same_settings(value: object) -> None:
    text = canonical_json(value)
    assert text.isascii()
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    assert fingerprint(value) == hashlib.sha256(text.encode()).hexdigest()


@given(st.dictionaries(st.text(), scalars, min_size=2), st.randoms())
def test_fingerprint_does_not_depend_on_insertion_order(value: dict[str, object], random: object) -> None:
    keys = list(value)
    random.shuffle(keys)  # type: ignore[attr-defined] # hypothesis' Random
    assert fingerprint({key: value[key] for key in keys}) == fingerprint(value)


@given(settings, settings)
def test_fingerprint_differs_where_the_json_differs(a: object, b: object) -> None:
    assert (fingerprint(a) == fingerprint(b)) == (canonical_json(a) == canonical_json(b))


def test_fingerprint_is_equal_across_processes_with_other_hash_seeds() -> None:
    program = (
        "from fractions import Fraction; from catalog.fingerprint import fingerprint;"
        "from catalog.grid import GridRule;"
        "print(fingerprint({k: [GridRule(window_s=Fraction(96, 100), hop_s=Fraction(1)), 0.1, 'é\\ud800'] "
        "for k in {'a', 'b', 'c', 'd', 'e'}}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=PROJECT,
            env=os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "4242")
    }
    assert len(found) == 1
    assert len(found.pop()) == 64


def test_plain_of_dataclasses_fractions_and_tuples() -> None:
    value = Outer(inner=Inner(hop_s=Fraction(1, 3), names=("a", "b")), rate_hz=16000)
    assert plain(value) == {"inner": {"hop_s": "1/3", "names": ["a", "b"]}, "rate_hz": 16000}
    assert canonical_json(value) == '{"inner":{"hop_s":"1/3","names":["a","b"]},"rate_hz":16000}'


def test_fingerprint_is_the_one_that_stores_hold() -> None:
    # Changing these makes every store on disk look like another recipe.
    assert fingerprint({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert fingerprint({"b": 1, "a": Fraction(1, 2)}) == hashlib.sha256(b'{"a":"1/2","b":1}').hexdigest()


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [len, lambda: 0, {1, 2}, frozenset("ab"), b"bytes", np.zeros(2), np.int64(1), np.float32(1), object(), Inner],
    ids=lambda value: type(value).__name__,
)
def test_fingerprint_of_what_has_no_stable_form_is_refused_naming_the_place(value: object) -> None:
    with pytest.raises(TypeError, match=r"settings\.encoder\[1\]\.mode: .* has no stable form"):
        fingerprint({"encoder": [0, {"mode": value}]})


def test_fingerprint_of_an_enum_member_is_refused() -> None:
    with pytest.raises(TypeError, match="no stable form"):
        fingerprint(Colour.RED)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_fingerprint_of_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"settings\.x: .* finite"):
        fingerprint({"x": value})


def test_fingerprint_of_a_key_that_is_no_string_is_refused() -> None:
    with pytest.raises(TypeError, match="string keys, got 1"):
        fingerprint({1: "a"})
