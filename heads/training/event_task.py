"""The task of heads that find events with a start and an end; judged by mAP. B items, T segments, E events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.dataset import Dataset
from catalog.event import Prediction
from heads.data.device import DeviceSplit
from heads.data.split import Split
from heads.data.targets import events_on_grid
from heads.dense.crops import crop, draw_crops
from heads.dense.detect import detect
from heads.dense.head import DenseHead
from heads.dense.output import DenseOutput
from heads.evaluation.evaluate import Evaluation
from heads.evaluation.evaluate_dense import HEADLINE, evaluate_dense, judge_dense, trivial_numbers
from heads.evaluation.media_events import detected_events
from heads.features import FeatureBatch, Target
from heads.runs.record import Numbers
from heads.spec import Head
from heads.training.settings import Settings


class EventTask:
    """Training, evaluation and prediction of a head that finds events; see `SegmentTask`."""

    headline = HEADLINE
    uses_threshold = True
    uses_run_filter = False

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self._dataset, self._settings = dataset, settings

    def training_data(self, train: Split, val: Split) -> EventTraining:
        """Both splits on the device."""
        return EventTraining(train, val, self._dataset, self._settings)

    def evaluate(self, head: Head, split: Split, *, smooth: int | None = None) -> Evaluation:
        """By UnAV-100's protocol."""
        if smooth is not None:
            raise ValueError("the run filter is for heads that score segments")
        metrics, rows = evaluate_dense(_dense(head), split, self._dataset, device=self._settings.device)
        return Evaluation(metrics=metrics, rows=rows, confusion=None)

    def baselines(self, split: Split) -> dict[str, Numbers]:
        """See `heads.evaluation.evaluate_dense.trivial_numbers`."""
        return trivial_numbers(split, self._dataset)

    def predict(
        self,
        head: Head,
        split: Split,
        durations_s: Sequence[float | None],
        *,
        threshold: float | None = None,
        smooth: int | None = None,
    ) -> list[list[Prediction]]:
        """Events of at least the threshold's score."""
        assert smooth is None, "there is no run filter of events"
        return detected_events(
            _dense(head), split, self._dataset.classes, durations_s, threshold=threshold, device=self._settings.device
        )

    def size(self, metrics: Mapping[str, float]) -> str:
        """True events."""
        return f"{metrics['events']} events"


class EventTraining:
    """Training and validation of a dense head (see `heads.training.fit.TrainingData`)."""

    def __init__(self, train: Split, val: Split, dataset: Dataset, settings: Settings) -> None:
        self.train, self._val, self._dataset, self._settings = train, val, dataset, settings
        self._data = DeviceSplit(train, None, settings.device)
        self._val_data = DeviceSplit(val, None, settings.device)
        self._lengths_N = train.mask_NT.sum(axis=1)
        grid = train.recipe.grid
        self._times_NE2, self._labels_NE = events_on_grid(train.items, dataset.classes, grid)
        self._val_events = events_on_grid(val.items, dataset.classes, grid)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that must have features: training and validation."""
        return self.train, self._val

    def batch(self, items_B: NDArray[np.int64]) -> tuple[FeatureBatch, Target]:
        """A crop of each item, drawn anew, with the events that lie in it."""
        settings, times_BE2, labels_BE = self._settings, self._times_NE2[items_B], self._labels_NE[items_B]
        # One number of torch's own generator, whose state a checkpoint keeps.
        rng = np.random.default_rng(int(torch.randint(2**62, (1,)).item()))
        starts_B, lengths_B = draw_crops(
            rng,
            self._lengths_N[items_B],
            times_BE2,
            labels_BE,
            crop_share=settings.crop_share,
            max_segments=settings.max_segments,
        )
        times_BE2, labels_BE = crop(times_BE2, labels_BE, starts_B, lengths_B, self._lengths_N[items_B])
        arrays = (items_B, starts_B, lengths_B, times_BE2, labels_BE)
        items, starts, lengths, times, labels = (torch.from_numpy(values).to(settings.device) for values in arrays)
        return self._data.crops(items, starts, lengths), Target(events_BE2=times, event_labels_BE=labels)

    def validate(self, head: Head) -> Numbers:
        """`val_loss` (as of a batch, by the normaliser as it stands) and that of `judge_dense`, in one pass."""
        dense = _dense(head)
        times_NE2, labels_NE = (torch.from_numpy(values).to(self._settings.device) for values in self._val_events)
        losses: list[float] = []

        def add(items_B: NDArray[np.int64], output: DenseOutput) -> None:
            target = Target(events_BE2=times_NE2[items_B], event_labels_BE=labels_NE[items_B])
            sums_B, counts_B = dense.loss_of(output, target)
            losses.extend((sums_B.double() / counts_B.double().sum()).tolist())

        found = detect(dense, self._val, device=self._settings.device, data=self._val_data, on_output=add)
        row: Numbers = {"val_loss": self._settings.batch_size * float(np.mean(losses))}
        return row | {f"val_{name}": value for name, value in judge_dense(found, self._val, self._dataset).items()}


def _dense(head: Head) -> DenseHead:
    if not isinstance(head, DenseHead):
        raise TypeError(f"needs a dense head, got {type(head).__name__}")
    return head
