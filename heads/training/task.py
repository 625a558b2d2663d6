"""What a head is trained for: to classify segments, or to find events. The one place where the two differ.

A task is made once of a data set and the settings; `HeadSpec.task` names it.
"""

from __future__ import annotations

from catalog.dataset import Dataset
from heads.registry import spec
from heads.training.event_task import EventTask
from heads.training.segment_task import SegmentTask
from heads.training.settings import Settings

# Both have the same methods and properties; `SegmentTask` says what each is.
Task = SegmentTask | EventTask


def make_task(head_name: str, dataset: Dataset, settings: Settings) -> Task:
    """The task of a head.

    Args:
        dataset: without training items of unseen classes (`heads.evaluation.protocol.without_unseen_training`).
        settings: of the training; elsewhere only their device is used.

    Raises:
        ValueError: there is no head of this name.
    """
    return SegmentTask(dataset, settings) if spec(head_name).task == "segments" else EventTask(dataset, settings)
