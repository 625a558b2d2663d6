"""What a report is made of: a run's record, its judged test items, and what the store says of the extraction.

A run folder and a store may come from a stranger, so every field is checked before it reaches the page, and nothing
here is trusted as markup. What is absent is stated as absent; a report is made of whatever there is.

K classes, the background (if any) the last one; T segments.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import AvelError
from catalog.grid import SegmentGrid
from catalog.store.reader import open_store
from catalog.video import STATUSES
from heads.runs.folder import read_record, seeds_in
from heads.runs.record import RunRecord
from heads.runs.seeds import Spread, spreads

PREDICTIONS_FILE = "predictions_{split}.json"


@dataclass(frozen=True, kw_only=True)
class Span:
    """`[start_s, end_s)` of one class, true or predicted (`score` is None for the truth).

    Attributes:
        wrong: is it a mistake, as `verdict` says for people? Both are left as they are where nobody has judged it.
    """

    start_s: float
    end_s: float
    label: str
    score: float | None = None
    wrong: bool = False
    verdict: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """A run's record and folder, or those of several that differ in their seeds alone (`avel train --seeds`).

    Attributes:
        folder: of the run; of several, the folder of all.
        record: the run's; of several, the first seed's.
        seeds: of several, the names of their folders, in order.
        spread: of several, the metrics over the seeds, by split and name.
    """

    folder: Path
    record: RunRecord
    seeds: tuple[str, ...] = ()
    spread: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)

    @property
    def first_folder(self) -> Path:
        """The folder of `record` and its predictions."""
        return self.folder / self.seeds[0] if self.seeds else self.folder

    def numbers(self, split: str) -> dict[str, float]:
        """The metrics of a split, of several runs their means; {} where there are none."""
        means = {name: spread.mean for name, spread in self.spread.get(split, {}).items()}
        return self.record.metrics.get(split, {}) | means

    def sds(self, split: str) -> dict[str, float]:
        """The sample standard deviations of a split's metrics over the seeds; {} of one run."""
        found = {name: spread.sd for name, spread in self.spread.get(split, {}).items()}
        return {name: sd for name, sd in found.items() if sd is not None}

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """K names, the background last where the run has one."""
        background = self.record.background
        return self.record.classes if background is None else (*self.record.classes, background)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One test item with its truth and its prediction.

    Attributes:
        true_TK, predicted_TK: bool; one class a segment (background included) where the run has a background,
            any number of classes where it has none.
        score_TK: float64, NaN where no score is given.
        features_T: bool, True where the segment had a feature. Those without count too, as background or no class.
        seen: is the item's class a seen one? None where the data set has no such thing.
    """

    item_id: str
    video_id: str
    true_TK: NDArray[np.bool_]
    predicted_TK: NDArray[np.bool_]
    score_TK: NDArray[np.float64]
    features_T: NDArray[np.bool_]
    seen: bool | None = None

    @property
    def wrong_T(self) -> NDArray[np.bool_]:
        """Segments whose classes are not exactly the true ones."""
        wrong_T: NDArray[np.bool_] = (self.true_TK != self.predicted_TK).any(axis=1)
        return wrong_T

    @property
    def num_segments(self) -> int:
        """T; every segment here counts."""
        return len(self.true_TK)

    @property
    def num_right(self) -> int:
        """Segments that are right."""
        return self.num_segments - int(self.wrong_T.sum())


@dataclass(frozen=True, kw_only=True)
class StoredVideo:
    """What the store says of one video under the run's recipe. `duration_s` is NaN where unknown."""

    uri: str
    duration_s: float
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What the store says at the run's snapshot.

    Attributes:
        problem: why the store could not be read; empty where it could.
        statuses: status -> videos, every status named.
        reasons: (status, reason, videos), most frequent first.
        duration_s: seconds of media with a known duration.
        videos: by id.
    """

    problem: str = ""
    statuses: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[tuple[str, str, int], ...] = ()
    duration_s: float = 0.0
    videos: Mapping[str, StoredVideo] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All videos."""
        return sum(self.statuses.values())


def read_run(folder: Path) -> ReportedRun:
    """The record of the run in `folder`, or the records of several that differ in their seeds alone.

    Raises:
        ValueError: no run is there, or its record is damaged; the message names the file and the field. Or several
            runs differ in more than their seeds.
    """
    seeds = () if (folder / "run.json").exists() else tuple(seeds_in(folder))
    if not seeds:
        return ReportedRun(folder=folder, record=read_record(folder))
    records = [read_record(folder / seed) for seed in seeds]
    for seed, record in zip(seeds, records, strict=True):
        for what in ("head", "config", "classes", "recipe", "store", "dataset"):
            if getattr(record, what) != getattr(records[0], what):
                raise ValueError(f"{folder}: {what} of {seed} is not that of {seeds[0]}; give one of these runs")
    try:
        spread = spreads([record.metrics for record in records])
    except ValueError as error:
        raise ValueError(f"{folder}: {error}; give one of {', '.join(seeds)}") from error
    return ReportedRun(folder=folder, record=records[0], seeds=seeds, spread=spread)


def read_predictions(run: ReportedRun, split: str) -> tuple[Judged, ...] | None:
    """The judged items of `split`, in file order; None where the run has no such file.

    Raises:
        ValueError: the file is damaged, or an item occurs twice; the message names the item and the field.
    """
    rows = read_rows(run, split)
    if rows is None:
        return None
    items = tuple(_judged(row, run, where) for where, row in rows)
    check_once([item.item_id for item in items], run, split)
    return items


def read_rows(run: ReportedRun, split: str) -> list[tuple[str, dict[str, Any]]] | None:
    """The location of each item of `split`, for messages, and its unchecked fields; None where there is no such file.

    Raises:
        ValueError: the file is no JSON list of objects; names it.
    """
    path = run.first_folder / PREDICTIONS_FILE.format(split=split)
    if not path.is_file():
        return None
    rows = _json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: needs a list of items, got {type(rows).__name__}")
    return [(f"{path}[{i}]", _object(row, f"{path}[{i}]")) for i, row in enumerate(rows)]


def check_once(item_ids: Sequence[str], run: ReportedRun, split: str) -> None:
    """Checks that no item occurs twice in the predictions of `split`: it would count twice.

    Args:
        item_ids: in file order.

    Raises:
        ValueError: one does; names it and both positions.
    """
    positions: dict[str, int] = {}
    for i, item_id in enumerate(item_ids):
        first = positions.setdefault(item_id, i)
        if first != i:
            path = run.first_folder / PREDICTIONS_FILE.format(split=split)
            raise ValueError(f"{path}[{i}].item: {repr(item_id)[:80]} is at [{first}] already; each item occurs once")


def text_of(value: object, where: str) -> str:
    """`value`, if it is a text that says something.

    Raises:
        ValueError: it is not; names the location.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: needs a text, got {repr(value)[:80]}")
    return value


def read_extraction(run: ReportedRun) -> Extraction:
    """Counts and locations of the media, from the store at the run's snapshot, or why it cannot be read."""

    record = run.record
    try:
        store = open_store(record.store["uri"], at=record.store["snapshot"])
        videos, outcomes = store.videos(), store.outcomes(record.recipe.name)
    except (AvelError, ValueError, OSError, KeyError) as error:
        return Extraction(problem=str(error) or type(error).__name__)
    counts = Counter(outcomes.status)
    reasons = Counter(
        (status, reason) for status, reason in zip(outcomes.status, outcomes.reason, strict=True) if reason
    )
    duration_s = np.asarray(videos.duration_s, dtype=np.float64)
    return Extraction(
        statuses={status: counts.pop(status, 0) for status in STATUSES} | dict(counts),
        reasons=tuple(
            (status, reason, n) for (status, reason), n in sorted(reasons.items(), key=lambda row: (-row[1], row[0]))
        ),
        duration_s=float(duration_s[np.isfinite(duration_s)].sum()),
        videos={
            id_: StoredVideo(uri=uri, duration_s=length_s, status=status, reason=reason)
            for id_, uri, length_s, status, reason in zip(
                videos.ids, videos.uris, duration_s.tolist(), outcomes.status, outcomes.reason, strict=True
            )
        },
    )


def spans(chosen_TK: NDArray[np.bool_], run: ReportedRun, score_TK: NDArray[np.float64] | None = None) -> list[Span]:
    """Runs of True of each class but the background, as spans in order of time; scores are averaged over a run.

    A segment is drawn one hop wide around its window's middle, so that overlapping windows stand side by side.
    """
    edges_s = segment_edges_s(len(chosen_TK), run)
    found = []
    for k, label in enumerate(run.record.classes):
        for begin, end in runs_of_true(chosen_TK[:, k]):
            scores = [] if score_TK is None else [s for s in score_TK[begin:end, k].tolist() if math.isfinite(s)]
            score = sum(scores) / len(scores) if scores else None
            found.append(Span(start_s=edges_s[begin], end_s=edges_s[end], label=label, score=score))
    return sorted(found, key=lambda span: (span.start_s, span.end_s))


def runs_of_true(flags_T: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First (inclusive) and last (exclusive) index of each run of True."""
    turns = np.flatnonzero(np.diff(np.concatenate([[False], flags_T, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(turns[::2], turns[1::2], strict=True)]


def segment_edges_s(num_segments: int, run: ReportedRun) -> list[float]:
    """The `num_segments + 1` seconds between which segments are drawn."""
    rule = run.record.recipe.grid
    grid = SegmentGrid(window_s=rule.window_s, hop_s=rule.hop_s, count=max(1, num_segments))
    edges_s = [max(Fraction(0), grid.middle_s(i) - rule.hop_s / 2) for i in range(num_segments + 1)]
    return [float(edge_s) for edge_s in edges_s]


def _judged(row: Mapping[str, Any], run: ReportedRun, where: str) -> Judged:
    true = _classes(row.get("labels_true"), run, f"{where}.labels_true")
    predicted = _classes(row.get("labels_pred"), run, f"{where}.labels_pred")
    num_segments = len(true)
    mask, score = row.get("mask"), row.get("score")
    mask = [True] * num_segments if mask is None else mask
    score = [None] * num_segments if score is None else score
    for key, values in (("labels_pred", predicted), ("mask", mask), ("score", score)):
        if not isinstance(values, list) or len(values) != num_segments:
            raise ValueError(f"{where}.{key}: needs a list of {num_segments} entries, as labels_true has")
    score_TK = np.full((num_segments, len(run.labels)), np.nan)
    for t, (classes, value) in enumerate(zip(predicted, score, strict=True)):
        values = value if isinstance(value, list) else [value] * len(classes)
        if len(values) != len(classes) or not all(v is None or type(v) in (int, float) for v in values):
            raise ValueError(f"{where}.score[{t}]: needs a number for each class predicted, got {value!r}")
        score_TK[t, classes] = [math.nan if v is None else v for v in values]
    seen = row.get("seen")
    if seen is not None and not isinstance(seen, bool):
        raise ValueError(f"{where}.seen: needs true, false or nothing, got {str(seen)[:80]}")
    return Judged(
        item_id=text_of(row.get("item"), f"{where}.item"),
        video_id=text_of(row.get("video"), f"{where}.video"),
        true_TK=_hot(true, len(run.labels)),
        predicted_TK=_hot(predicted, len(run.labels)),
        score_TK=score_TK,
        features_T=np.asarray(mask, dtype=np.bool_),
        seen=seen,
    )


def _classes(value: object, run: ReportedRun, where: str) -> list[list[int]]:
    """The class numbers of each segment: a number where a segment has one class, a list where it may have several."""
    if not isinstance(value, list):
        raise ValueError(f"{where}: needs a list of class numbers, got {str(value)[:80]}")
    one = run.record.background is not None
    sets = [[entry] if type(entry) is int else entry for entry in value]
    for entry in sets:
        if not isinstance(entry, list) or not all(type(k) is int and 0 <= k < len(run.labels) for k in entry):
            raise ValueError(f"{where}: needs class numbers in 0 .. {len(run.labels) - 1}, got {str(entry)[:80]}")
        if one and len(entry) != 1:
            raise ValueError(f"{where}: a run with a background has one class a segment, got {str(entry)[:80]}")
    return sets


def _hot(sets: Sequence[Sequence[int]], num_classes: int) -> NDArray[np.bool_]:
    hot_TK = np.zeros((len(sets), num_classes), dtype=np.bool_)
    for t, classes in enumerate(sets):
        hot_TK[t, list(classes)] = True
    return hot_TK


def validation_metric(history: Sequence[Mapping[str, float]]) -> str:
    """The history's validation metric (not its loss); empty where it has none."""
    names = [name for epoch in history for name in epoch if name.startswith("val_") and name != "val_loss"]
    return names[0] if names else ""


def own_numbers(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Names of the head's own numbers by epoch: all that are neither of training nor of validation."""
    training = ("epoch", "train_loss", "learning_rate", "seconds")
    return sorted({n for epoch in history for n in epoch if n not in training and not n.startswith("val_")})


def chosen_epoch(record: RunRecord) -> int | None:
    """The epoch whose weights were kept; None where the training does not say."""
    kept = record.training.get("best_epoch")
    return kept if isinstance(kept, int) and not isinstance(kept, bool) else None


def _json(path: Path) -> object:
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also of bytes that are no text, and of numbers without end
        raise ValueError(f"{path}: not JSON: {error}") from error
    return value


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: needs an object, got {type(value).__name__}")
    return value
