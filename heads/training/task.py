"""What a head is trained for: to classify segments, or to find events. The one place where the two differ.

A task is made once of a data set and the settings; `HeadSpec.task` names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from catalog.dataset import Dataset
from catalog.event import Prediction
from heads.data.split import Split
from heads.evaluation.evaluate import Evaluation
from heads.registry import spec
from heads.runs.record import Numbers
from heads.spec import Head
from heads.training.event_task import EventTask
from heads.training.fit import TrainingData
from heads.training.segment_task import SegmentTask
from heads.training.settings import Settings


class Task(Protocol):
    """`heads.training.segment_task` or `heads.training.event_task`."""

    @property
    def headline(self) -> str:
        """The metric that counts: it chooses the epoch, and is what a run records of the baselines."""
        ...

    @property
    def uses_threshold(self) -> bool:
        """Does `predict` take a threshold?"""
        ...

    @property
    def uses_run_filter(self) -> bool:
        """Do `evaluate` and `predict` take the run filter's length?"""
        ...

    def training_data(self, train: Split, val: Split) -> TrainingData:
        """Batches, loss and validation for `heads.training.fit.fit`."""
        ...

    def evaluate(self, head: Head, split: Split, *, smooth: int | None = None) -> Evaluation:
        """Metrics and predictions on a split.

        Args:
            smooth: the run filter's least run, in segments, for `Evaluation.smoothed`.

        Raises:
            ValueError: `smooth` where there is no run filter, or below 1.
        """
        ...

    def baselines(self, split: Split) -> dict[str, Numbers]:
        """Metrics of the trivial baselines, decided from the annotations of the training split."""
        ...

    def predict(
        self,
        head: Head,
        split: Split,
        durations_s: Sequence[float | None],
        *,
        threshold: float | None = None,
        smooth: int | None = None,
    ) -> list[list[Prediction]]:
        """The events of each item, in order of start.

        Args:
            durations_s: of each item's video; events are cut to it, where known.
            threshold: least probability of a class, or score of an event; None takes the task's own.
            smooth: the run filter's least run, in segments.
        """
        ...

    def size(self, metrics: Mapping[str, float]) -> str:
        """What was counted, for people: "120 segments"."""
        ...


def make_task(head_name: str, dataset: Dataset, settings: Settings) -> Task:
    """The task of a head.

    Args:
        dataset: without training items of unseen classes (`heads.evaluation.protocol.without_unseen_training`).
        settings: of the training; elsewhere only their device is used.

    Raises:
        ValueError: there is no head of this name.
    """
    return SegmentTask(dataset, settings) if spec(head_name).task == "segments" else EventTask(dataset, settings)
