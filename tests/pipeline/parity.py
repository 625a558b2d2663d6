"""The goldens of the published encoders, as the tests want them.

`load` draws the seeded weights and inputs of a case with the goldens' own `parity_cases.py`; `check` compares with the
limits that their README states.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Case:
    """One golden forward pass.

    Attributes:
        state: published keys to tensors. inputs: name to tensor. want: name to array. meta: how it was made.
    """

    name: str
    state: dict[str, Tensor]
    inputs: dict[str, Tensor]
    want: dict[str, NDArray[Any]]
    meta: dict[str, Any]


def load(shared: Path, name: str) -> Case:
    state, inputs, want, meta = _module(shared, "parity_cases").load_case(shared / "parity/encoders", name)
    return Case(name=name, state=state, inputs=inputs, want=want, meta=meta)


def prepared(shared: Path, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and meta of a golden of preprocessing, `prep_*`."""
    with np.load(shared / f"parity/encoders/{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("meta")))


def seeded_state(
    shared: Path, keys: str, *, seed: int = 0, given: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Seeded weights for every key of `keys`.keys.json: what a whole published file would hold."""
    rows = json.loads((shared / f"parity/encoders/{keys}.keys.json").read_text())["tensors"]
    state: dict[str, Tensor] = _module(shared, "seeded_weights").seeded_state_dict(rows, seed, given)
    return state


def seeded_input(shared: Path, meta: dict[str, Any]) -> NDArray[np.float32]:
    """The drawn input of a golden of preprocessing, as its meta describes it."""
    drawn = {key: meta["input"][key] for key in ("name", "shape", "scale", "shift")}
    tensor: Tensor = _module(shared, "seeded_weights").seeded_input(**drawn, seed=meta["seed"])
    return np.asarray(tensor.numpy(), np.float32)


def check(shared: Path, case: Case, got: Tensor | NDArray[Any], key: str = "out") -> None:
    """Fails where `got` is further from the golden than allowed; large activations are stored sub-sampled."""
    cases = _module(shared, "parity_cases")
    want = case.want[key]
    values = np.asarray(got.detach().float().numpy() if isinstance(got, Tensor) else got)
    if values.shape != want.shape:
        values = cases.subsample(values, want.size)
    worst, rms = cases.compare(values, want)
    limit = _limit(case.name, key)
    told = f"{case.name} {key}: max {worst:.2e}, rms {rms:.2e}, limits {limit}"
    assert worst <= limit[0], told
    assert rms <= limit[1], told


def _limit(case: str, key: str) -> tuple[float, float]:
    if case.startswith("audioclip_audio"):
        return (2e-2, 5e-4) if key == "mid.x_db" else (2e-3, 1e-3)
    return (2e-4, 1e-4) if "_full_" in case else (5e-5, 3e-5)


def _module(shared: Path, name: str) -> ModuleType:
    folder = str(shared / "parity/encoders")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)
