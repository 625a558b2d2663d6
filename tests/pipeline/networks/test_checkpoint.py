"""Checkpoints from strangers: what loads, what is refused, and that refusing runs nothing."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.networks.checkpoint import BadCheckpoint, fill, read_state, with_prefix


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)


def good_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {key: value.clone() for key, value in Net().state_dict().items()}


class Trap:
    """Unpickled without care it makes a folder: the proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors", "wrapped"])
def test_read_state_gives_the_tensors_saved(tmp_path: Path, form: str) -> None:
    path, state = tmp_path / "net.any", good_state()
    if form == "safetensors":
        save_file(state, path)
    else:
        saved: object = {"state_dict": state, "meta": {"epoch": 3}} if form == "wrapped" else state
        torch.save(saved, path, _use_new_zipfile_serialization=form != "legacy")
    read = read_state(path)
    assert read.keys() == state.keys()
    for key, tensor in state.items():
        torch.testing.assert_close(read[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_read_state_takes_numpy_arrays(tmp_path: Path, dtype: str) -> None:
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    torch.save({"means": array}, tmp_path / "pca.pth")
    read = read_state(tmp_path / "pca.pth")
    np.testing.assert_array_equal(read["means"].numpy(), array)


@pytest.mark.parametrize("form", ["zip", "safetensors"])
@pytest.mark.parametrize("before", ["module.", "_orig_mod.", "model.", "model.module.", "_orig_mod.module."])
def test_read_state_takes_off_what_trainers_put_before_every_key_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: str, form: str
) -> None:
    state = {before + key: tensor for key, tensor in good_state().items()}
    if form == "safetensors":
        save_file(state, tmp_path / "net.pt")
    else:
        torch.save({"state_dict": state, "epoch": 3, "optimizer": OPTIMISER}, tmp_path / "net.pt")
    read = read_state(tmp_path / "net.pt")
    assert read.keys() == good_state().keys()
    assert f"net.pt: every key begins with {before!r}" in caplog.text
    # Published with such a prefix (RAFT), it is given back, whether the file has it or not.
    for held in (state, good_state()):
        torch.save(held, tmp_path / "raft.pt")
        assert read_state(tmp_path / "raft.pt", prefix="module.").keys() == {f"module.{key}" for key in good_state()}


def test_read_state_prefix_of_some_keys_is_theirs(tmp_path: Path) -> None:
    state = good_state() | {"module.more": torch.zeros(2)}
    torch.save(state, tmp_path / "net.pt")
    assert read_state(tmp_path / "net.pt").keys() == state.keys()


OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"model": "STATE", "best": np.float64(0.3), "epoch": np.int64(3), "optimizer": OPTIMISER}, ""),
        ({"state_dict": {"model": "STATE"}}, ""),
        ({"student": "STATE", "optimizer": OPTIMISER, "epoch": 1}, ""),
        ({"model": "STATE", "ema": {"w": torch.ones(1)}}, "'model' is read; it holds weights under ema too"),
    ],
)
def test_read_state_finds_the_one_state_dict_within(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, held: dict[str, object], said: str
) -> None:
    def filled(value: object) -> object:
        if value == "STATE" and isinstance(value, str):
            return good_state()
        return {key: filled(one) for key, one in value.items()} if type(value) is dict else value

    torch.save(filled(held), tmp_path / "net.pt")
    assert read_state(tmp_path / "net.pt").keys() == good_state().keys()
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_read_state_of_several_state_dicts_names_them(tmp_path: Path) -> None:
    torch.save({"teacher": good_state(), "student": good_state()}, tmp_path / "net.pt")
    with pytest.raises(BadCheckpoint, match=r"several state dicts \(teacher, student\): save the one that is meant"):
        read_state(tmp_path / "net.pt")


def test_read_state_arrays_of_objects_run_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    torch.save({"means": np.array([Trap(proof)], dtype=object)}, tmp_path / "evil.pth")
    with pytest.raises(BadCheckpoint, match=r"evil\.pth: refused, nothing of it was run"):
        read_state(tmp_path / "evil.pth")
    assert not proof.exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["alone", "beside tensors"])
def test_read_state_malicious_pickle_runs_nothing(tmp_path: Path, legacy: bool, place: str) -> None:
    path, proof = tmp_path / "evil.pt", tmp_path / "ran"
    held: object = Trap(proof) if place == "alone" else {"state_dict": good_state(), "extra": Trap(proof)}
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BadCheckpoint, match=r"evil\.pt: refused, nothing of it was run") as told:
        read_state(path)
    assert not proof.exists()
    assert "(it names posix.mkdir)" in str(told.value)
    assert "weights_only" not in str(told.value)  # torch's own message advises to load without the guard


def test_read_state_plain_pickle_runs_nothing(tmp_path: Path) -> None:
    path, proof = tmp_path / "evil.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Trap(proof)))
    with pytest.raises(BadCheckpoint, match=r"evil\.pkl"):
        read_state(path)
    assert not proof.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_read_state_cut_at_any_place_is_an_error(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "net.pt"
    torch.save(good_state(), path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    cut = tmp_path / "cut.pt"
    for size in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        cut.write_bytes(whole[:size])
        with pytest.raises(BadCheckpoint, match=r"cut\.pt"):
            read_state(cut)


def test_read_state_other_files_are_an_error(tmp_path: Path) -> None:
    contents = {
        "text.pt": b"<html>404 not found</html>",
        "noise.pt": bytes(range(256)) * 40,
        "header.pt": (10**9).to_bytes(8, "little") + b"{",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadCheckpoint, match=name):
            read_state(tmp_path / name)


def test_read_state_truncated_safetensors_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(good_state(), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BadCheckpoint, match="safetensors"):
        read_state(path)


def test_read_state_compressed_archive_is_refused(tmp_path: Path) -> None:
    path, packed = tmp_path / "net.pt", tmp_path / "packed.pt"
    torch.save(good_state(), path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    with pytest.raises(BadCheckpoint, match="compressed"):
        read_state(packed)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([torch.zeros(2)], "needs a state dict"),
        ({"epoch": 3, "lr": 0.1}, "needs names with tensors, got 'epoch': int"),
        ({}, "empty"),
        ({"w": torch.zeros(2).to_sparse()}, "not a plain dense tensor"),
    ],
)
def test_read_state_no_state_dict_is_an_error(tmp_path: Path, held: object, message: str) -> None:
    torch.save(held, tmp_path / "x.pt")
    with pytest.raises(BadCheckpoint, match=message):
        read_state(tmp_path / "x.pt")


def test_fill_meta_module_equals_saved() -> None:
    state = {f"tower.{key}": value for key, value in good_state().items()} | {"other.w": torch.zeros(1)}
    with torch.device("meta"):
        net = Net()
    fill(net, state, where="x.pt", prefix="tower.", ignore=("other.",))
    for key, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, state[f"tower.{key}"], rtol=0, atol=0)
    assert with_prefix(state, "tower.").keys() == good_state().keys()


def test_fill_half_precision_becomes_float32() -> None:
    state = {key: value.half() if value.is_floating_point() else value for key, value in good_state().items()}
    net = Net()
    fill(net, state, where="x.pt")
    assert net.linear.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear.weight": None}, r"missing: linear\.weight$"),
        ({"linear.weight": torch.zeros(2, 4)}, r"linear\.weight float32\(2, 4\) for float32\(2, 3\)"),
        ({"linear.weight": torch.zeros(2, 3, dtype=torch.int64)}, "int64"),
        ({"more": torch.zeros(1)}, "not wanted: more"),
        ({"linear.bias": torch.tensor([1.0, float("nan")])}, r"linear\.bias holds NaN"),
        ({"norm.running_var": torch.tensor([1.0, float("inf")])}, r"norm\.running_var holds NaN"),
    ],
)
def test_fill_another_networks_state_is_an_error(change: dict[str, torch.Tensor | None], message: str) -> None:
    state = {key: value for key, value in (good_state() | change).items() if value is not None}
    with pytest.raises(BadCheckpoint, match=message):
        fill(Net(), state, where="x.pt, net")


def test_fill_optional_keys_may_be_absent() -> None:
    state = good_state()
    del state["norm.num_batches_tracked"]
    with pytest.raises(BadCheckpoint, match="num_batches_tracked"):
        fill(Net(), state, where="x.pt")
    fill(Net(), state, where="x.pt", optional=("num_batches_tracked",))
