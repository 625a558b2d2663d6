"""Where an open-vocabulary head goes wrong: the confusion of videos of seen classes beside that of unseen ones.

C classes, K = C + 1 with the background as the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heads.metrics.confusion_seen_unseen import PREDICTED_GROUPS, TRUE_GROUPS, group_confusion
from heads.metrics.confusion_seen_unseen import confusion_seen_unseen as count
from jobs.pages.charts import HeatMap, heat_map
from jobs.report.reported_run import Judged, ReportedRun
from jobs.report.segments.scores import row_shares, stacked

_SAID = {
    "right": "right",
    "other_seen": "another seen class",
    "other_unseen": "another unseen class",
    "missed": "background",
}


@dataclass(frozen=True, kw_only=True)
class ClassGroup:
    """Videos of seen or of unseen classes: how many, and their confusion; rows are the classes that stand in them."""

    name: str
    num_items: int
    heat: HeatMap | None


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """True segments of a group: (count, share) of each thing that was said of them; None where it cannot be."""

    name: str
    total: int
    cells: tuple[tuple[int, float] | None, ...]


@dataclass(frozen=True, kw_only=True)
class SeenUnseen:
    """Seen and unseen classes, and the groups of `heads.metrics.confusion_seen_unseen`."""

    said: tuple[str, ...]
    groups: tuple[GroupRow, ...]
    class_groups: tuple[ClassGroup, ...]


def seen_unseen(items: Sequence[Judged], run: ReportedRun) -> SeenUnseen | None:
    """Both, with seen classes before unseen ones in the columns; None where an item does not say which it is of."""
    if not items or any(item.seen is None for item in items):
        return None

    predicted_NT, true_NT, counted_NT = stacked(items)
    seen_N = np.array([item.seen is True for item in items])
    seen_C = np.array([label not in run.record.unseen for label in run.record.classes])
    found = count(predicted_NT, true_NT, seen_N, len(run.labels), counted_NT)
    groups = group_confusion(found.seen_KK + found.unseen_KK, seen_C)
    order = [*np.flatnonzero(seen_C).tolist(), *np.flatnonzero(~seen_C).tolist(), len(seen_C)]
    labels = [run.labels[k] for k in order]
    shown = []
    for name, counts_KK, here_N in (("seen", found.seen_KK, seen_N), ("unseen", found.unseen_KK, ~seen_N)):
        ordered_KK = counts_KK[np.ix_(order, order)]
        rows = np.flatnonzero(ordered_KK.any(axis=1)).tolist()
        heat = heat_map(row_shares(ordered_KK), ordered_KK, labels, rows=rows) if rows else None
        shown.append(ClassGroup(name=name, num_items=int(here_N.sum()), heat=heat))
    return SeenUnseen(
        said=tuple(_SAID[name] for name in PREDICTED_GROUPS),
        groups=tuple(
            GroupRow(
                name=name,
                total=int(row.sum()),
                # Of background nothing is missed: said of it, "background" is right.
                cells=tuple(
                    None if (name, said) == ("background", "missed") else (int(n), float(n / max(1, row.sum())))
                    for said, n in zip(PREDICTED_GROUPS, row, strict=True)
                ),
            )
            for name, row in zip(TRUE_GROUPS, groups, strict=True)
        ),
        class_groups=tuple(shown),
    )
