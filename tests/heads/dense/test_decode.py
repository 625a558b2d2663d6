"""Decoding of dense output against the goldens of the published code, a slow loop, and laws of batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.dense.candidates import Candidates
from heads.dense.decode import Decoding, decode
from heads.dense.nms import Suppression, suppress
from heads.dense.output import DenseOutput
from heads.dense.points import Points, points


def output_of(where: Points, logits: Tensor, offsets: Tensor, mask: Tensor) -> DenseOutput:
    return DenseOutput(logits_BPK=logits, offsets_BPC2=offsets, mask_BP=mask, counts=where.counts)


def random_output(where: Points, *, items: int = 3, classes: int = 7, width: int = 7, seed: int = 0) -> DenseOutput:
    """Logits on tenths, so that scores are equal often; some offsets too short."""
    rng = torch.Generator().manual_seed(seed)
    count = len(where.time_P)
    logits = (torch.randn(items, count, classes, generator=rng) * 20 - 40).round() / 10
    offsets = torch.rand(items, count, width, 2, generator=rng) * torch.tensor([0.05, 3.0])
    offsets[:, ::3] /= 100
    mask = torch.arange(count).expand(items, count) % (torch.arange(items)[:, None] + 2) != 1
    return output_of(where, logits, offsets, mask)


@pytest.mark.parametrize("case", ["full", "masked", "agnostic"])
def test_decode_and_suppress_equal_goldens(shared: Path, case: str) -> None:
    folder = shared / "parity" / "heads" / "decode"
    golden = np.load(folder / "decode.npz", allow_pickle=False)
    told = json.loads((folder / "decode.json").read_text())
    config = told["test_cfg"]
    logits, offsets, mask = (
        torch.from_numpy(np.concatenate([golden[f"{case}/{part}{level}"] for level in range(6)]))
        for part in ("cls", "off", "mask")
    )
    where = points(told["T"])
    output = output_of(where, logits[None], offsets.reshape(1, len(offsets), -1, 2), mask[None])
    (found,) = decode(output, where, Decoding(most_a_level=config["test_pre_nms_topk"]))
    np.testing.assert_array_equal(found.labels_N, golden[f"{case}/raw_labels"])
    np.testing.assert_allclose(found.scores_N, golden[f"{case}/raw_scores"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.segments_N2, golden[f"{case}/raw_segments"], rtol=0, atol=1e-4)

    most = config["test_max_seg_num"]
    kept = suppress(found, Suppression(most_a_class=most, most=most))
    seconds = (kept.segments_N2 * told["stride"] + told["num_frames"] / 2) / told["fps"]
    np.testing.assert_array_equal(kept.labels_N, golden[f"{case}/final_labels"])
    np.testing.assert_allclose(kept.scores_N, golden[f"{case}/final_scores"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(seconds.clip(0, told["duration"]), golden[f"{case}/final_segments"], rtol=0, atol=1e-4)


def slow(output: DenseOutput, where: Points, item: int, decoding: Decoding) -> list[tuple[float, float, float, int]]:
    rows = []
    start = 0
    shares = torch.sigmoid(output.logits_BPK[item])
    for count in where.counts:
        pairs = [
            (-float(shares[p, k]), p, k)
            for p in range(start, start + count)
            for k in range(shares.shape[1])
            if output.mask_BP[item, p] and shares[p, k] > decoding.threshold
        ]
        for share, p, k in sorted(pairs)[: decoding.most_a_level]:
            before, after = output.offsets_BPC2[item, p, k if output.offsets_BPC2.shape[2] > 1 else 0]
            left = float(where.time_P[p] - before * where.stride_P[p])
            right = float(where.time_P[p] + after * where.stride_P[p])
            if right - left > decoding.shortest:
                rows.append((left, right, -share, k))
        start += count
    return rows


@pytest.mark.parametrize("width", [7, 1])
@pytest.mark.parametrize("most", [9, 2000])
def test_decode_equals_slow_loop(width: int, most: int) -> None:
    where = points(32, 4)
    output = random_output(where, width=width)
    decoding = Decoding(threshold=0.01, most_a_level=most)
    for item, found in enumerate(decode(output, where, decoding)):
        wanted = slow(output, where, item, decoding)
        np.testing.assert_array_equal(rows_of(found), np.array(wanted))
        assert 0 < len(wanted) < int(output.mask_BP[item].sum()) * 7


def rows_of(found: Candidates) -> np.ndarray:
    return np.column_stack([found.segments_N2, found.scores_N, found.labels_N])


def test_decode_of_an_item_is_the_same_alone_and_padded() -> None:
    where, longer = points(32, 3), points(64, 3)
    output = random_output(where)
    wider = random_output(longer, seed=5)
    # Real points of each level first, then padding with anything, NaN included.
    places = torch.cat([torch.arange(n) + s for n, s in zip(where.counts, (0, 64, 96), strict=True)])
    mask = torch.zeros_like(wider.mask_BP)
    mask[:, places] = output.mask_BP
    wider.logits_BPK[:] = torch.nan
    wider.logits_BPK[:, places] = output.logits_BPK
    wider.offsets_BPC2[:, places] = output.offsets_BPC2
    padded = decode(output_of(longer, wider.logits_BPK, wider.offsets_BPC2, mask), longer, Decoding())
    for b, found in enumerate(decode(output, where, Decoding())):
        np.testing.assert_array_equal(rows_of(padded[b]), rows_of(found))
        one = output_of(where, output.logits_BPK[b, None], output.offsets_BPC2[b, None], output.mask_BP[b, None])
        np.testing.assert_array_equal(rows_of(decode(one, where, Decoding())[0]), rows_of(found))


def test_decode_of_nothing_real_finds_nothing() -> None:
    where = points(32)
    output = random_output(where, items=1)
    found = decode(output_of(where, output.logits_BPK, output.offsets_BPC2, output.mask_BP & False), where, Decoding())
    assert len(found[0]) == 0
    assert len(suppress(found[0], Suppression())) == 0


def test_decode_of_bfloat16_is_that_of_the_same_numbers() -> None:
    where = points(32)
    output = random_output(where)
    short = output_of(where, output.logits_BPK.bfloat16(), output.offsets_BPC2.bfloat16(), output.mask_BP)
    same = output_of(where, short.logits_BPK.float(), short.offsets_BPC2.float(), output.mask_BP)
    for left, right in zip(decode(short, where, Decoding()), decode(same, where, Decoding()), strict=True):
        np.testing.assert_array_equal(rows_of(left), rows_of(right))


def test_decode_of_what_cannot_be_raises() -> None:
    where = points(32)
    output = random_output(where)
    with pytest.raises(ValueError, match=r"63 points of levels .*, got points of levels \(64,"):
        decode(output, points(64), Decoding())
    output.logits_BPK[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN; items \[1\]"):
        decode(output, where, Decoding())
    output.logits_BPK[1, 0, 0] = 5.0
    output.offsets_BPC2[1, 0, 0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"finite ends; items \[1\]"):
        decode(output, where, Decoding())
    with pytest.raises(ValueError, match="threshold must be less than 1"):
        Decoding(threshold=1.0)
