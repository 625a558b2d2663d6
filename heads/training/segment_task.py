"""The task of heads that score segments: the truth of each segment to learn, a number of all to be judged by."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.dataset import Dataset
from heads.data.device import DeviceSplit
from heads.data.split import Split
from heads.data.targets import has_one_label, truth
from heads.evaluation.evaluate import judge, mean_loss
from heads.evaluation.predict import logits
from heads.features import FeatureBatch, Target
from heads.runs.record import Numbers
from heads.spec import Head
from heads.training.settings import Settings


class SegmentTask:
    """Training and validation of a head whose output is logits a segment (see `heads.training.fit.Task`)."""

    def __init__(self, train: Split, val: Split, dataset: Dataset, settings: Settings) -> None:
        self.train, self._val, self._dataset, self._device = train, val, dataset, settings.device
        self._val_true = truth(dataset, val.items, val.recipe.grid, val.num_segments)
        self._data = DeviceSplit(
            train,
            truth(dataset, train.items, train.recipe.grid, train.num_segments),
            settings.device,
            background=len(dataset.classes) if has_one_label(dataset) else None,
        )

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that must have features: training and validation."""
        return self.train, self._val

    def batch(self, items_B: NDArray[np.int64]) -> tuple[FeatureBatch, Target]:
        """Training items with their truth, on the device."""
        return self._data.batch(torch.from_numpy(items_B).to(self._device))

    def validate(self, head: Head) -> Numbers:
        """`val_loss`, and `val_NAME` of the number that counts."""
        logits_NTK = logits(head, self._val, device=self._device)
        loss = mean_loss(logits_NTK, self._val_true, self._val.mask_NT)
        assert loss is not None, "fit checks that validation has features"
        judged = judge(logits_NTK, self._val_true, self._val, self._dataset)
        return {"val_loss": loss} | {f"val_{name}": value for name, value in judged.items()}
