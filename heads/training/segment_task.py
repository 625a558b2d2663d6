"""The task of heads that score segments: classes of each segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.dataset import Dataset
from catalog.event import Prediction
from heads.data.device import DeviceSplit
from heads.data.split import Split
from heads.data.targets import has_one_label, truth
from heads.evaluation.evaluate import Evaluation, baselines, evaluate, judge, mean_loss
from heads.evaluation.media_events import segment_events
from heads.evaluation.predict import logits
from heads.evaluation.protocol import headline
from heads.features import FeatureBatch, Target
from heads.runs.record import Numbers
from heads.spec import Head
from heads.training.settings import Settings


class SegmentTask:
    """Training, evaluation and prediction of a head that scores segments.

    Attributes:
        headline: the metric that counts: it chooses the epoch, and is what a run records of the baselines.
        uses_threshold: does `predict` take a threshold?
        uses_run_filter: do `evaluate` and `predict` take the run filter's length?
    """

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self._dataset, self._settings = dataset, settings
        self.headline = headline(dataset)
        self.uses_run_filter = has_one_label(dataset)
        self.uses_threshold = not self.uses_run_filter

    def training_data(self, train: Split, val: Split) -> SegmentTraining:
        """Both splits on the device."""
        return SegmentTraining(train, val, self._dataset, self._settings.device)

    def evaluate(self, head: Head, split: Split, *, smooth: int | None = None) -> Evaluation:
        """By the data set's protocol, see `heads.evaluation.protocol`.

        Args:
            smooth: the run filter's least run, in segments, for `Evaluation.smoothed`.
        """
        return evaluate(head, split, self._dataset, device=self._settings.device, smooth=smooth)

    def baselines(self, split: Split) -> dict[str, Numbers]:
        """See `heads.evaluation.evaluate.baselines`."""
        return baselines(split, self._dataset)

    def predict(
        self,
        head: Head,
        split: Split,
        durations_s: Sequence[float | None],
        *,
        threshold: float | None = None,
        smooth: int | None = None,
    ) -> list[list[Prediction]]:
        """Runs of neighbouring segments of one class, of each item, in order of start.

        Args:
            durations_s: of each item's video; events are cut to it, where known.
            threshold: least probability of a class; None takes the task's own.
            smooth: the run filter's least run, in segments.
        """
        return segment_events(
            head,
            split,
            self._dataset,
            durations_s,
            threshold=threshold,
            smooth=smooth,
            device=self._settings.device,
        )

    def size(self, metrics: Mapping[str, float]) -> str:
        """What was counted, for people."""
        return f"{metrics['segments']} segments"


class SegmentTraining:
    """Training and validation of a head whose output is logits a segment (see `heads.training.fit.TrainingData`)."""

    def __init__(self, train: Split, val: Split, dataset: Dataset, device: str) -> None:
        self.train, self._val, self._dataset, self._device = train, val, dataset, device
        self._val_true = truth(dataset, val.items, val.recipe.grid, val.num_segments)
        self._data = DeviceSplit(
            train,
            truth(dataset, train.items, train.recipe.grid, train.num_segments),
            device,
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
