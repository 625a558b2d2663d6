"""The task of dense heads: events with their times to learn, mAP to be judged by. B items, T segments, E events."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from catalog.dataset import Dataset
from heads.batches import DeviceBatch, DeviceSplit, Target
from heads.blocks.dense_head import DenseHead
from heads.dense_windows import crop, draw_windows
from heads.detect import detect
from heads.evaluate_dense import average_map
from heads.read import Split
from heads.run_record import Numbers
from heads.settings import Settings
from heads.targets import events_on_grid


class DenseTask:
    """Training and validation of a dense head (see `heads.fit.Task`)."""

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

    def batch(self, items_B: NDArray[np.int64]) -> DeviceBatch:
        """A stretch of each item, drawn anew, with the events that lie in it."""
        settings, times_BE2, labels_BE = self._settings, self._times_NE2[items_B], self._labels_NE[items_B]
        # One number of torch's own generator, whose state a checkpoint keeps.
        rng = np.random.default_rng(int(torch.randint(2**62, (1,)).item()))
        starts_B, lengths_B = draw_windows(
            rng,
            self._lengths_N[items_B],
            times_BE2,
            labels_BE,
            crop_share=settings.crop_share,
            max_segments=settings.max_segments,
        )
        times_BE2, labels_BE = crop(times_BE2, labels_BE, starts_B, lengths_B, self._lengths_N[items_B])
        return _windows(self._data, settings.device, items_B, starts_B, lengths_B, times_BE2, labels_BE)

    def validate(self, head: nn.Module) -> Numbers:
        """`val_loss` (an event's, by the normaliser as it stands) and `val_average_map`."""
        if not isinstance(head, DenseHead):
            raise TypeError(f"needs a dense head, got {type(head).__name__}")
        sums, counts = 0.0, 0.0
        was_training = head.training
        head.eval()
        lengths_N = self._val.mask_NT.sum(axis=1)
        times_NE2, labels_NE = self._val_events
        with torch.inference_mode():
            for first in range(0, len(self._val.present), self._settings.batch_size):
                items_B = self._val.present[first : first + self._settings.batch_size]
                batch = _windows(
                    self._val_data,
                    self._settings.device,
                    items_B,
                    np.zeros(len(items_B), dtype=np.int64),
                    lengths_N[items_B],
                    times_NE2[items_B],
                    labels_NE[items_B],
                )
                assert batch.target is not None
                sums_B, counts_B = head.loss(
                    batch.visual, batch.audio, batch.target, batch.visual_valid_BT, batch.audio_valid_BT
                )
                sums, counts = sums + float(sums_B.double().sum()), counts + float(counts_B.sum())
        head.train(was_training)
        found = detect(head, self._val, device=self._settings.device, data=self._val_data)
        row: Numbers = {"val_loss": sums / counts}
        score = average_map(found, self._val, self._dataset)
        return row if score is None else row | {"val_average_map": score}


def _windows(
    data: DeviceSplit,
    device: str,
    items_B: NDArray[np.int64],
    starts_B: NDArray[np.int64],
    lengths_B: NDArray[np.int64],
    times_BE2: NDArray[np.float32],
    labels_BE: NDArray[np.int64],
) -> DeviceBatch:
    told = [torch.from_numpy(values).to(device) for values in (items_B, starts_B, lengths_B, times_BE2, labels_BE)]
    target = Target(mask_BT=torch.empty(0), events_BE2=told[3], event_labels_BE=told[4])
    return data.windows(told[0], told[1], told[2], target)
