"""CLIP's text tower against the published one."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.networks.checkpoint import fill
from pipeline.networks.clip_text import ClipText, Config
from tests.pipeline import parity


def test_clip_text_equals_the_published(shared: Path) -> None:
    case = parity.load(shared, "audioclip_text")
    with torch.device("meta"):
        net = ClipText(Config.published())
    assert Config.of(case.state) == Config.published()
    fill(net, case.state, where="golden")
    with torch.inference_mode():
        made = net.eval()(case.inputs["x"])
    parity.check(shared, case, made)


def test_clip_text_sees_only_what_is_before() -> None:
    net = ClipText(Config(width=64, layers=2, tokens=9, vocabulary=30, embedding=8)).eval()
    row = torch.tensor([[28, 3, 4, 29, 0, 0, 0, 0, 0]])
    later = row.clone()
    later[0, 4:] = 7
    with torch.inference_mode():
        torch.testing.assert_close(net(later), net(row))
