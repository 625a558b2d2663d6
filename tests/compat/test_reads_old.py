"""What version 0.1.0 left behind is read, verified, judged, run and gone on from, to the same numbers.

`data/README.md` says what it is. By the verbs alone, as a person would. Numbers of the same processor and libraries are
compared bit for bit; elsewhere sums are in another order, and the tolerance is that of float32 over a training.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from safetensors.numpy import load_file

from jobs.cli.main import main

DATA = Path(__file__).resolve().parent / "data"
RUNS = {"linear": ("store", "ave"), "ave_clip": ("store", "ave"), "loco": ("dense", "unav")}
HALVES = {"half": ("store", "ave", "descriptors-1s"), "half_dense": ("dense", "unav", "halves")}
RELATIVE, ABSOLUTE = 1e-3, 1e-4


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was kept, unpacked; tests that change something copy it."""
    return unpacked(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
    return found


def test_fingerprints_of_all_presets_are_those_of_old(expected: dict[str, Any]) -> None:
    now = fingerprints()
    assert {name: now.get(name) for name in expected["fingerprints"]} == expected["fingerprints"]


def test_old_stores_verify_and_hold_the_same_values(old: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    for name in ("store", "dense"):
        assert avel("store", "verify", str(old / name))["ok"]
        assert store_contents(old / name, tmp_path / name) == expected["stores"][name]


@pytest.mark.parametrize("name", RUNS)
def test_old_runs_are_judged_as_before(name: str, old: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(old / "runs" / name, tmp_path / name)
    alike(judged(old, name, tmp_path / name), expected["judged"][name], expected)
    alike(rows_of(tmp_path / name), rows_of(old / "runs" / name), expected)


@pytest.mark.parametrize("name", RUNS)
def test_old_runs_find_the_same_events_in_new_media(name: str, old: Path, expected: dict[str, Any]) -> None:
    found = predicted(old, name)
    assert found["videos"][0]["events"]
    alike(found, expected["predicted"][name], expected)


@pytest.mark.parametrize("name", HALVES)
def test_old_half_trained_runs_go_on_to_the_same_end(
    name: str, old: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(old / "runs" / f"{name}.partial", tmp_path / f"{name}.partial")
    order = half_order(old, name, expected["orders"][name], tmp_path / name)
    if expected["machine"]["torch"] != torch.__version__:
        # Another torch may give other bits, so going on is refused; it says why, and nothing is lost.
        assert "torch: " in avel(*order, status=2)["error"]
        assert (tmp_path / f"{name}.partial" / "checkpoint.safetensors").exists()
        return
    ended = avel(*order)
    assert not (tmp_path / f"{name}.partial").exists()
    record, then = (json.loads((place / "run.json").read_text()) for place in (tmp_path / name, old / "ended" / name))
    # Epochs made before the kill are counted too.
    assert [row["epoch"] for row in record["history"]] == [row["epoch"] for row in then["history"]]
    alike(ended["metrics"], then["metrics"], expected)
    alike(record["metrics"], then["metrics"], expected)
    alike(without_seconds(record["history"]), without_seconds(then["history"]), expected)
    alike(rows_of(tmp_path / name), rows_of(old / "ended" / name), expected)
    tensors, before = (load_file(place / name / "model.safetensors") for place in (tmp_path, old / "ended"))
    assert tensors.keys() == before.keys()
    for key, value in tensors.items():
        if expected["machine"] == machine():
            assert value.tobytes() == before[key].tobytes(), key
        else:
            np.testing.assert_allclose(value, before[key], rtol=RELATIVE, atol=ABSOLUTE, err_msg=key)


def test_videos_and_recipes_added_to_an_old_store_change_nothing_there(
    old: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(old / "store", store)
    how = ["--store", str(store), "--executor", "local", "--workers", "1"]
    avel("extract", str(old / "new.mp4"), "--recipe", "descriptors-1s", *how)
    quick = ["--set", "grid.hop_s=1/4", "--as", "quick"]
    avel("extract", str(old / "new.mp4"), "--recipe", "descriptors-1s", *quick, *how)
    held = avel("store", "inspect", str(store))
    assert held["videos"]["status"] == {"extracted": 10, "quarantined": 1}
    assert {name: one["rows"] for name, one in held["recipes"].items()} == {
        "descriptors-1s": 100,
        "quick": 37,
        "slow": 45,
        "small": 90,
    }
    now, before = (raw_arrays(place) for place in (store, old / "store"))
    for path, values in before.items():
        np.testing.assert_array_equal(now[path][: len(values)], values, err_msg=path)
    for name in ("linear", "ave_clip"):  # read at the snapshot that they were trained on
        shutil.copytree(old / "runs" / name, tmp_path / name)
        moved = judged(old, name, tmp_path / name, store=store)
        alike(moved, expected["judged"][name], expected)


def avel(*words: str, status: int = 0) -> dict[str, Any]:
    """What a verb prints with --json."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*words, "--json"]) == status, printed.getvalue()
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


def unpacked(folder: Path) -> Path:
    with tarfile.open(DATA / "old.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def fingerprints() -> dict[str, str]:
    return {row["recipe"]: row["fingerprint"] for row in avel("recipe", "list")["recipes"]}


def raw_arrays(store: Path) -> dict[str, Any]:
    """Everything but the attributes, read without the project's reader."""
    import icechunk

    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(store)))
    root = zarr.open_group(repository.readonly_session("main").store, mode="r")
    return {path: member[...] for path, member in root.members(max_depth=None) if isinstance(member, zarr.Array)}


def store_contents(store: Path, scratch: Path) -> dict[str, Any]:
    """What the store says of itself, and hashes of each recipe's features as they are exported."""
    told = avel("store", "inspect", str(store))
    found: dict[str, Any] = {"videos": told["videos"], "recipes": {}}
    for name, recipe in sorted(told["recipes"].items()):
        keys = ("fingerprint", "settings", "rows", "visual_valid_rows", "audio_valid_rows", "status", "vocabularies")
        out = scratch / name
        avel("store", "export", str(store), "--format", "zarr", "--recipe", name, str(out))
        found["recipes"][name] = {key: recipe[key] for key in keys} | {"exported": dict(exported(out))}
    return found


def exported(folder: Path) -> Iterator[tuple[str, str]]:
    """Array path -> kind, shape and SHA-256 of the values."""
    for file in sorted(folder.rglob("zarr.json")):
        if json.loads(file.read_text(encoding="utf-8"))["node_type"] == "array":
            values: Any = zarr.open_array(file.parent, mode="r")[...]
            whole = json.dumps(values.tolist()).encode() if values.dtype.kind in "TOU" else values.tobytes()
            told = f"{values.dtype.kind} {list(values.shape)} {hashlib.sha256(whole).hexdigest()}"
            yield file.parent.relative_to(folder).as_posix(), told


def judged(old: Path, name: str, run: Path, *, store: Path | None = None) -> dict[str, Any]:
    """What `avel evaluate` prints of a run on the test split."""
    place, root = RUNS[name]
    words = ["--split", "test", "--store", str(store or old / place), "--root", str(old / root)]
    told = avel("evaluate", str(run), *words)
    return {key: told[key] for key in ("metrics", "baselines", "confusion")}


def rows_of(run: Path) -> Any:
    return json.loads((run / "predictions_test.json").read_text(encoding="utf-8"))


def predicted(old: Path, name: str) -> dict[str, Any]:
    """What `avel predict` finds in the medium that no store holds."""
    told = avel("predict", str(old / "runs" / name), str(old / "new.mp4"))
    videos = [{key: value for key, value in row.items() if key != "uri"} for row in told["videos"]]
    return {"classes": told["classes"], "videos": videos}


def half_order(old: Path, name: str, how: list[str], out: Path) -> list[str]:
    store, root, recipe = HALVES[name]
    dataset = {"ave": "ave", "unav": "unav100"}[root]
    what = ["--dataset", dataset, "--root", str(old / root), "--store", str(old / store), "--recipe", recipe]
    return ["train", *what, *how, "--out", str(out)]


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def machine() -> dict[str, str]:
    """What decides the last bits of a number."""
    cpu = platform.processor()
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        cpu = found[1] if found else cpu
    vectors = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "numpy": np.__version__, "cpu": cpu, "vectors": vectors}


def alike(now: Any, then: Any, expected: dict[str, Any]) -> None:
    """Equal on the machine of old, to the last digit; elsewhere numbers with a fraction may differ a little."""
    if expected["machine"] == machine():
        assert now == then
    elif isinstance(then, dict):
        assert now.keys() == then.keys()
        for key, value in then.items():
            alike(now[key], value, expected)
    elif isinstance(then, list):
        assert len(now) == len(then)
        for one, other in zip(now, then, strict=True):
            alike(one, other, expected)
    elif isinstance(then, float):
        assert now == pytest.approx(then, rel=RELATIVE, abs=ABSOLUTE)
    else:
        assert now == then
