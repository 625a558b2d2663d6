"""Audio-guided attention against published outputs, a slow loop of the formula, and its laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heads.blocks.agva import AudioGuidedAttention
from heads.blocks.masked_lstm import MaskedLSTM

# The golden's names and ours.
NAMES = {
    "affine_audio": "audio",
    "affine_video": "visual",
    "affine_v": "content",
    "affine_g": "guide",
    "affine_h": "score",
}


def golden_case(shared: Path, case: str) -> dict[str, Tensor]:
    with np.load(shared / "parity" / "heads" / "agva" / "agva_psp.npz", allow_pickle=False) as arrays:
        return {k.removeprefix(f"{case}/"): torch.from_numpy(arrays[k]) for k in arrays if k.startswith(f"{case}/")}


def published(golden: dict[str, Tensor]) -> AudioGuidedAttention:
    hidden, audio_width = golden["w/affine_audio.weight"].shape
    block = AudioGuidedAttention(
        golden["video"].shape[-1],
        audio_width,
        variant="published",
        places=len(golden["w/affine_v.weight"]),
        hidden=hidden,
    )
    mine = {k: v for k, v in golden.items() if k.split(".")[0].removeprefix("w/") in NAMES}
    block.load_state_dict({f"{NAMES[k[2:].split('.')[0]]}.{k.split('.')[1]}": v for k, v in mine.items()})
    return block


@pytest.mark.parametrize("case", ["small", "map1", "t5", "default"])
def test_forward_published_weights_equal_golden(shared: Path, case: str) -> None:
    golden = golden_case(shared, case)
    got = published(golden)(golden["video"].flatten(2, 3), golden["audio"])
    torch.testing.assert_close(got, golden["out"], rtol=1e-4, atol=5e-5)


def test_whole_published_net_equals_golden(shared: Path) -> None:
    """AVE-ECCV18's: attention, an LSTM a modality, relu and a linear layer twice, softmax."""
    golden = golden_case(shared, "att_net")
    video, audio = golden["video"].float(), golden["audio"]
    lstms = {}
    for name, width in (("audio", 128), ("video", 512)):
        lstms[name] = MaskedLSTM(width, 8)
        prefix = f"w/lstm_{name}."
        lstms[name].load_state_dict(
            {f"lstm.{k.removeprefix(prefix)}": v for k, v in golden.items() if k.startswith(prefix)}
        )
    attended, mask = published(golden)(video.flatten(2, 3), audio), torch.ones(2, 10, dtype=torch.bool)
    x = torch.cat([lstms["audio"](audio, mask), lstms["video"](attended, mask)], dim=-1)
    for name in ("L1", "L2"):
        x = nn.functional.linear(x.relu(), golden[f"w/{name}.weight"], golden[f"w/{name}.bias"])
    torch.testing.assert_close(x.softmax(dim=-1), golden["out"], rtol=1e-4, atol=5e-5)


def test_formula_equals_slow_loop_over_places() -> None:
    torch.manual_seed(0)
    block = AudioGuidedAttention(5, 4, hidden=6, content=3)
    visual, audio = torch.randn(2, 3, 7, 5), torch.randn(2, 3, 4)
    with torch.inference_mode():
        got = block(visual, audio)
        for b in range(2):
            for t in range(3):
                heard = (block.audio.weight @ audio[b, t] + block.audio.bias).clamp(min=0)
                total, out = torch.zeros(()), torch.zeros(5)
                for r in range(7):
                    seen = (block.visual.weight @ visual[b, t, r] + block.visual.bias).clamp(min=0)
                    content = block.content.weight @ seen + block.guide.weight @ heard
                    weight = (block.score.weight[0] @ content.tanh()).exp()
                    total, out = total + weight, out + weight * visual[b, t, r]
                torch.testing.assert_close(got[b, t], out / total, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", ["formula", "published"])
def test_one_vector_is_itself(variant: Any) -> None:
    visual = torch.randn(2, 3, 1, 5)
    block = AudioGuidedAttention(5, 4, variant=variant, places=1, hidden=6)
    assert torch.equal(block(visual, torch.randn(2, 3, 4)), visual[:, :, 0])


def test_formula_order_of_places_does_not_matter_and_sound_does() -> None:
    torch.manual_seed(1)
    block = AudioGuidedAttention(5, 4, hidden=16, content=8)
    visual, audio = torch.randn(1, 2, 6, 5), torch.randn(1, 2, 4)
    got = block(visual, audio)
    torch.testing.assert_close(block(visual[:, :, torch.randperm(6)], audio), got, rtol=0, atol=1e-6)
    assert not torch.allclose(block(visual, audio.flip(1)), got, atol=1e-4)
    assert block(torch.randn(1, 2, 49, 5), audio).shape == (1, 2, 5)  # any R


def test_published_other_number_of_places_raises() -> None:
    block = AudioGuidedAttention(5, 4, variant="published", places=4)
    with pytest.raises(ValueError, match="made for 4 places, got 9"):
        block(torch.zeros(1, 1, 9, 5), torch.zeros(1, 1, 4))


def test_init_wrong_size_raises() -> None:
    with pytest.raises(ValueError, match="number of places in advance, got None"):
        AudioGuidedAttention(5, 4, variant="published")
    with pytest.raises(ValueError, match="widths of at least 1"):
        AudioGuidedAttention(5, 0)
