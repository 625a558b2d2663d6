"""Positive sample propagation against published outputs, a slow loop over pairs of segments, and its laws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.models.psp.pair_similarity import pair_similarity
from heads.models.psp.propagation import PositiveSamplePropagation

# The golden's names and ours.
NAMES = {
    "v_L1": "visual_first",
    "v_L2": "visual_second",
    "v_fc": "visual_output",
    "a_L1": "audio_first",
    "a_L2": "audio_second",
    "a_fc": "audio_output",
    "layer_norm": "norm",
}
MASK = torch.arange(12) < torch.tensor([12, 7, 3, 1, 0])[:, None]


def block_of(threshold: float, *, seed: int = 0) -> PositiveSamplePropagation:
    torch.manual_seed(seed)
    return PositiveSamplePropagation(8, output_width=6, threshold=threshold).eval()


@pytest.mark.parametrize("threshold", ["0.0", "0.099", "0.3"])
def test_forward_published_weights_equal_golden(shared: Path, threshold: str) -> None:
    with np.load(shared / "parity" / "heads" / "agva" / "agva_psp.npz", allow_pickle=False) as arrays:
        golden = {k.removeprefix("psp/"): torch.from_numpy(arrays[k]) for k in arrays if k.startswith("psp/")}
    block = PositiveSamplePropagation(16, output_width=10, threshold=float(threshold)).eval()
    weights = {}
    for key, value in golden.items():
        if key.startswith("w/"):
            layer, kind = key.removeprefix("w/").split(".")
            weights[f"{NAMES[layer]}.{kind}"] = value
    block.load_state_dict(weights)
    mask = torch.ones(golden["video"].shape[:2], dtype=torch.bool)
    fused, visual, audio = block(golden["video"], golden["audio"], mask)
    for name, got in (("fuse", fused), ("v", visual), ("a", audio)):
        torch.testing.assert_close(got, golden[f"out_{name}_{threshold}"], rtol=1e-4, atol=5e-5)
    if threshold == "0.3":  # the golden has one
        torch.testing.assert_close(pair_similarity(visual, audio), golden["cos"], rtol=1e-4, atol=5e-5)


def slow(block: PositiveSamplePropagation, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """One item without padding, pair by pair."""
    n, threshold = len(visual), block.threshold * 10 / len(visual)
    v1, v2 = (torch.relu(visual @ w.weight.T) for w in (block.visual_first, block.visual_second))
    a1, a2 = (torch.relu(audio @ w.weight.T) for w in (block.audio_first, block.audio_second))
    beta = [[max(0.0, (v2[i] @ a1[j]).item() / math.sqrt(visual.shape[1])) for j in range(n)] for i in range(n)]

    def taken(rows: list[list[float]], values: Tensor) -> Tensor:
        out = []
        for row in rows:
            total = sum(row)
            weights = [w / total if total else 0.0 for w in row]
            weights = [w if w > threshold else 0.0 for w in weights]
            total = sum(weights)
            vector = torch.zeros(values.shape[1])
            for weight, value in zip(weights, values, strict=True):
                vector = vector + (weight / total if total else 0.0) * value
            out.append(vector)
        return torch.stack(out)

    transposed = [[beta[i][j] for i in range(n)] for j in range(n)]
    outputs = []
    for x, linear in (
        (visual + taken(beta, a2), block.visual_output),
        (audio + taken(transposed, v1), block.audio_output),
    ):
        y = torch.relu(x @ linear.weight.T)
        centred = y - y.mean(dim=1, keepdim=True)
        outputs.append(centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt())
    return outputs[0], outputs[1]


@pytest.mark.parametrize("threshold", [0.0, 0.099, 0.2])
def test_forward_each_item_equals_slow_loop_without_padding(threshold: float) -> None:
    block = block_of(threshold)
    torch.manual_seed(1)
    visual, audio = torch.randn(5, 12, 8), torch.randn(5, 12, 8)
    visual[~MASK], audio[~MASK] = 1e3, -1e3
    fused, got_v, got_a = block(visual, audio, MASK)
    for b, count in enumerate((12, 7, 3, 1)):
        wanted_v, wanted_a = slow(block, visual[b, :count], audio[b, :count])
        torch.testing.assert_close(got_v[b, :count], wanted_v, rtol=0, atol=1e-5)
        torch.testing.assert_close(got_a[b, :count], wanted_a, rtol=0, atol=1e-5)
        torch.testing.assert_close(fused[b, :count], (wanted_v + wanted_a) / 2, rtol=0, atol=1e-5)
    assert all(bool(torch.isfinite(x).all()) for x in (fused, got_v, got_a))


def test_threshold_above_every_weight_propagates_nothing() -> None:
    torch.manual_seed(2)
    visual, audio = torch.randn(1, 10, 8), torch.randn(1, 10, 8)
    mask = torch.ones(1, 10, dtype=torch.bool)
    block = block_of(1.0)
    alone = block.norm(torch.relu(block.visual_output(visual)))
    torch.testing.assert_close(block(visual, audio, mask)[1], alone)
    assert not torch.allclose(block_of(0.0)(visual, audio, mask)[1], alone, atol=1e-3)


def test_gradients_are_finite_where_nothing_ties() -> None:
    block = block_of(0.099)
    with torch.no_grad():
        block.visual_second.weight.zero_()  # all ties are 0
    visual = torch.randn(2, 10, 8, requires_grad=True)
    torch.autograd.backward(block(visual, torch.randn(2, 10, 8), torch.ones(2, 10, dtype=torch.bool))[0].sum())
    assert visual.grad is not None
    assert bool(torch.isfinite(visual.grad).all())


@pytest.mark.parametrize("wrong", [{"width": 0}, {"threshold": -0.1}, {"threshold": float("nan")}, {"dropout": 1.0}])
def test_init_wrong_field_raises(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive sample propagation needs widths"):
        PositiveSamplePropagation(**({"width": 8} | wrong))  # type: ignore[arg-type]  # names and values pair up
