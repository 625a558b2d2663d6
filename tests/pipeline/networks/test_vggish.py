"""VGGish and its log-mel examples against the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipeline.decode.resample import resample
from pipeline.networks.checkpoint import fill
from pipeline.networks.vggish import Vggish, postprocess
from pipeline.preprocess.vggish_log_mel import examples
from tests.pipeline import parity


def test_vggish_equals_the_published(shared: Path) -> None:
    case = parity.load(shared, "vggish")
    with torch.device("meta"):
        net = Vggish()
    fill(net, case.state, where="golden", ignore=("pproc.",))
    with torch.inference_mode():
        made = net.eval()(case.inputs["x"])
    parity.check(shared, case, made)
    assert sum(parameter.numel() for parameter in net.parameters()) == 72_141_184
    vectors, means = case.state["pproc.pca_eigen_vectors"], case.state["pproc.pca_means"]
    off = np.abs(postprocess(made, vectors, means).numpy() - case.want["out_postprocessed"])
    assert off.max() <= 1  # a step where the value lies on its edge
    assert (off > 0).mean() < 0.01


def test_published_pca_equals_the_published(shared: Path) -> None:
    case = parity.load(shared, "vggish")
    with np.load(shared / "parity/encoders/vggish_pca_params.npz") as file:
        names = {key: torch.from_numpy(file[key].astype(np.float32)) for key in file.files if file[key].ndim}
    vectors = next(value for value in names.values() if value.ndim == 2 and value.shape == (128, 128))
    means = next(value for value in names.values() if value.numel() == 128)
    made = postprocess(torch.from_numpy(case.want["published_pca_input"]), vectors, means)
    np.testing.assert_array_equal(made.numpy(), case.want["out_postprocessed_published_pca"])


@pytest.mark.parametrize("name", ["dog_audio", "test"])
def test_examples_equal_the_published(shared: Path, name: str) -> None:
    arrays, meta = parity.prepared(shared, "prep_vggish")
    source = meta["sources"][name]
    samples, rate_hz = soundfile.read(shared / "data" / source["source"], dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    made = examples(mono if rate_hz == 16000 else resample(mono, rate_hz, 16000, "kaiser_best"))
    assert made.shape == arrays[f"logmel_{name}"].shape
    assert np.abs(made - arrays[f"logmel_{name}"]).max() <= 2e-3


@pytest.mark.parametrize(("size", "count"), [(0, 0), (399, 0), (15599, 0), (15600, 1), (16000, 1), (31000, 2)])
def test_examples_are_whole(size: int, count: int) -> None:
    assert examples(np.zeros(size)).shape == (count, 1, 96, 64)
