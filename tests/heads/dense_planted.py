"""Items of many lengths whose features say where their events are, and a head that reads just that."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from catalog.dataset import Dataset, Item
from catalog.event import Event
from catalog.grid import GridRule
from catalog.recipe import Recipe, VideoSampling
from catalog.store.modal import Modal
from catalog.video import Video
from heads.data.split import Split
from heads.data.targets import events_on_grid
from heads.dense.head import DenseHead
from heads.dense.output import DenseOutput
from heads.features import FeatureBatch

CLASSES = ("bark", "horn", "drums")
# As ONE-PEACE's features of UnAV-100.
GRID = GridRule(window_s=Fraction(1), hop_s=Fraction(1, 4), tail="drop")
_LEVELS = 3


def dataset(*, videos: int = 12, seed: int = 0, longest_s: int = 20) -> Dataset:
    """A third of the videos for each split; one to three events a video, those of one class apart."""
    rng = np.random.default_rng(seed)
    items, made = [], []
    for number in range(videos):
        duration_s = Fraction(int(rng.integers(5, longest_s + 1)))
        events = []
        for k in rng.permutation(len(CLASSES))[: int(rng.integers(1, 4))]:
            start_s, end_s = sorted(rng.choice(int(duration_s) * 10 - 1, 2, replace=False) + 1)
            if end_s - start_s >= 10:
                events.append(
                    Event(start_s=Fraction(int(start_s), 10), end_s=Fraction(int(end_s), 10), label=CLASSES[k])
                )
        name = f"v{number}"
        split = ("train", "val", "test")[number % 3]
        items.append(Item(id=name, video_id=name, split=split, events=tuple(events)))
        made.append(Video(id=name, uri=f"{name}.mp4", duration_s=duration_s))
    return Dataset(
        name="unav100", classes=CLASSES, items=tuple(items), videos=tuple(made), num_segments=None, background=None
    )


def split(data: Dataset, name: str, *, absent: tuple[str, ...] = ()) -> Split:
    """A visual row is, for each class, whether its segment's middle lies in an event, and how far the ends are."""
    items = data.split(name)
    times_NE2, labels_NE = events_on_grid(items, data.classes, GRID)
    rows: list[NDArray[np.float32]] = []
    rows_of: list[NDArray[np.int64]] = []
    for n, item in enumerate(items):
        duration_s = data.by_id[item.video_id].duration_s
        assert duration_s is not None
        count = 0 if item.id in absent else GRID.grid(duration_s).count
        row_TK3 = np.zeros((count, len(data.classes), 3), dtype=np.float32)
        for (start, end), k in zip(times_NE2[n], labels_NE[n], strict=True):
            at_T = np.arange(count)
            inside_T = (at_T > start) & (at_T < end) if k >= 0 else np.zeros(count, dtype=bool)
            row_TK3[inside_T, k] = np.stack([np.ones(count), at_T - start, end - at_T], axis=1)[inside_T]
        rows_of.append(np.arange(len(rows), len(rows) + count))
        rows += list(row_TK3.reshape(count, 3 * len(data.classes)))
    longest = max(len(one) for one in rows_of)
    rows_NT = np.full((len(items), longest), -1, dtype=np.int64)
    for n, one in enumerate(rows_of):
        rows_NT[n, : len(one)] = one
    return Split(
        name=name,
        items=items,
        recipe=Recipe(
            name="told",
            encoder="descriptors",
            grid=GRID,
            video=VideoSampling(frames_per_segment=1, height_px=1, width_px=1),
            audio=None,
        ),
        visual=Modal(values=np.array(rows, dtype=np.float32), valid=np.ones(len(rows), dtype=bool)),
        audio=None,
        rows_NT=rows_NT,
        counted_NT=rows_NT >= 0,
        absent={item.id: "not in the store" for item in items if item.id in absent},
    )


class Told(DenseHead):
    """Says at the finest level what the features say, each logit `sure` or its negative, and nothing elsewhere."""

    def __init__(self, sure: float = 9.0) -> None:
        class Config:
            num_classes = len(CLASSES)
            levels = _LEVELS
            regression = "class_aware"
            iou_loss = "diou"
            center_radius = None

        super().__init__(Config())  # type: ignore[arg-type]  # fields of plain classes, not properties
        self.sure = sure
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch: FeatureBatch) -> DenseOutput:
        visual, mask_BT = batch.visual, batch.mask_BT
        assert visual is not None
        pad = -visual.shape[1] % 2 ** (_LEVELS - 1)
        visual, mask_BT = nn.functional.pad(visual, (0, 0, 0, pad)), nn.functional.pad(mask_BT, (0, pad))
        told_BTK3 = visual.reshape(*visual.shape[:2], len(CLASSES), 3)
        counts = tuple(visual.shape[1] // 2**level for level in range(_LEVELS))
        coarse = (len(visual), sum(counts[1:]), len(CLASSES))
        logits_BTK = self.scale * self.sure * (2 * told_BTK3[..., 0] - 1)
        return DenseOutput(
            logits_BPK=torch.cat([logits_BTK, torch.full(coarse, -self.sure)], dim=1),
            offsets_BPC2=torch.cat([told_BTK3[..., 1:], torch.zeros(*coarse, 2)], dim=1),
            mask_BP=torch.cat([mask_BT[:, :: 2**level] for level in range(_LEVELS)], dim=1),
            counts=counts,
        )


class Smoothed(Told):
    """What `Told` says of features averaged over so many segments on either side: a head that looks so far."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, batch: FeatureBatch) -> DenseOutput:
        assert batch.visual is not None
        smooth = nn.functional.avg_pool1d(
            batch.visual.transpose(1, 2), 2 * self.reach + 1, stride=1, padding=self.reach
        )
        return super().forward(replace(batch, visual=smooth.transpose(1, 2)))
