"""The folder of a fine-tuning run: all is restored, bit for bit; another run's or a damaged checkpoint is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.finetune.contrastive import FeatureQueue
from pipeline.finetune.folder import CHECKPOINT, WEIGHTS, FinetuneProgress, resume, save, save_weights

SETTINGS = {"epochs": 3, "tau": 0.07}
DONE = FinetuneProgress(before={"r1": 0.1}, best={"r1": 0.5}, best_epoch=2, history=[{"r1": 0.4}, {"r1": 0.5}])


class Run:
    """A network after some steps, with its optimiser and queue."""

    def __init__(self, steps: int, width: int = 3) -> None:
        torch.manual_seed(steps)
        self.module = nn.Linear(4, width)
        self.optimiser = torch.optim.AdamW(self.module.parameters(), lr=0.1)
        self.queue = FeatureQueue(5)
        for _ in range(steps):
            self.optimiser.zero_grad()
            self.module(torch.randn(2, 4)).square().sum().backward()
            self.optimiser.step()
            self.queue.push(torch.randn(2, 3), torch.randn(2, 3))

    def save(self, folder: Path) -> None:
        save(folder, self.module, self.optimiser, self.queue, SETTINGS, DONE)

    def resume(self, folder: Path, settings: dict[str, float] = SETTINGS) -> FinetuneProgress | None:
        return resume(folder, self.module, self.optimiser, self.queue, settings, "cpu")


def test_resumed_run_takes_the_same_next_step(tmp_path: Path) -> None:
    first, second = Run(3), Run(0)
    assert second.resume(tmp_path) is None
    first.save(tmp_path)
    assert second.resume(tmp_path) == DONE
    assert first.queue.image_MD is not None
    assert second.queue.image_MD is not None
    assert torch.equal(first.queue.image_MD, second.queue.image_MD)
    for run in (first, second):
        run.optimiser.zero_grad()
        run.module(torch.ones(2, 4)).square().sum().backward()
        run.optimiser.step()
    assert torch.equal(first.module.weight, second.module.weight)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_checkpoint_of_other_settings_names_them(tmp_path: Path) -> None:
    Run(1).save(tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(tau: 0\.07, now 0\.1\)"):
        Run(1).resume(tmp_path, {**SETTINGS, "tau": 0.1})


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    Run(1).save(tmp_path)
    with pytest.raises(ValueError, match="damaged or of another network"):
        Run(1, width=7).resume(tmp_path)


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    Run(1).save(tmp_path)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        (tmp_path / CHECKPOINT).write_bytes(data)
        with pytest.raises(ValueError, match="damaged"):
            Run(1).resume(tmp_path)
    torch.save([1], tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="needs a dictionary, got list"):
        Run(1).resume(tmp_path)


def test_weights_are_replaced_whole(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        save_weights({"w": torch.full((2, 3), value).t()}, tmp_path)
        assert torch.equal(load_file(tmp_path / WEIGHTS)["w"], torch.full((3, 2), value))
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]
