"""Timelines of videos whose events have times of their own: of each class the truth over what was predicted.

Shown are the predictions of at least a score that suits the whole split (`dense_scores.best_threshold`), so that a
video is judged by what is drawn: F1 of these at an overlap of 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.pages.charts import Tick
from jobs.report.dense.evidence import DenseItem
from jobs.report.dense.scores import KINDS, RIGHT, DenseCounts, Verdict
from jobs.report.reported_run import ReportedRun, Span
from jobs.report.segments.timeline import MOST_SPANS, Bar, Media, axis_ticks, colours_of, frame_times_s, lanes

# True events of one video that are drawn; UnAV-100's busiest has 23.
MOST_TRUE = 100
# Of an axis, in seconds, so that shares of it stay numbers.
_SHORTEST_S = 1e-3


@dataclass(frozen=True, kw_only=True)
class DenseJudged:
    """An item, what became of it, and what it is judged by: predictions of at least the score `least`."""

    item: DenseItem
    verdict: Verdict
    least: float

    @property
    def num_true(self) -> int:
        """True events."""
        return len(self.item.true_labels_E)

    @property
    def num_shown(self) -> int:
        """Predictions that count."""
        return int((self.item.scores_P >= self.least).sum())

    @property
    def num_found(self) -> int:
        """True events that one of these found."""
        return int((self.verdict.score_E >= self.least).sum())

    @property
    def f1(self) -> float:
        """Of events, at an overlap of 0.5; 1 where there is nothing to find and nothing was predicted."""
        total = self.num_true + self.num_shown
        return 2 * self.num_found / total if total else 1.0

    @property
    def duration_s(self) -> float:
        """Of the axis: the video's, or as long as there are events."""
        shown_P = self.item.scores_P >= self.least
        ends_s: list[float] = [*self.item.true_E2[:, 1].tolist(), *self.item.predicted_P2[shown_P, 1].tolist()]
        return max(self.item.duration_s or 0.0, *ends_s, _SHORTEST_S)


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class of one video: bars that do not overlap, on as few lanes as that takes."""

    label: str
    colour: int
    unseen: bool
    true_lanes: tuple[tuple[Bar, ...], ...]
    predicted_lanes: tuple[tuple[Bar, ...], ...]


@dataclass(frozen=True, kw_only=True)
class DenseTimeline:
    """One video as the template draws it; `hidden` predictions and `hidden_true` events are too many to draw."""

    item_id: str
    video_id: str
    duration_s: float
    num_true: int
    num_found: int
    num_false: int
    f1: float
    media: Media
    frame_times_s: tuple[float, ...]
    rows: tuple[ClassRow, ...]
    hidden: int
    hidden_true: int
    ticks: tuple[Tick, ...]


def choose_extremes(counts: DenseCounts, num: int) -> tuple[list[DenseJudged], list[DenseJudged]]:
    """The worst and the best of the items that have an event or a prediction to show, by F1; `num` of both together.

    Of equals come first those with a prediction, then those with more events, then those earlier in the file.
    """
    judged = [
        DenseJudged(item=item, verdict=verdict, least=counts.threshold.score)
        for item, verdict in zip(counts.items, counts.verdicts, strict=True)
    ]
    worst = sorted((j for j in judged if j.num_true + j.num_shown), key=lambda j: (j.f1, j.num_shown == 0, -j.num_true))
    num_worst = min((num + 1) // 2, (len(worst) + 1) // 2)
    num_best = min(num // 2, len(worst) - num_worst)
    best = sorted(worst[num_worst:], key=lambda j: (-j.f1, -j.num_true))
    return worst[:num_worst], best[:num_best]


def dense_timeline(judged: DenseJudged, run: ReportedRun, media: Media) -> DenseTimeline:
    """The timeline of an item, with what was read of its medium."""
    item, duration_s = judged.item, judged.duration_s
    truth = _true_spans(judged, run)
    shown_P = np.argsort(-item.scores_P, kind="stable")[: min(MOST_SPANS, judged.num_shown)]
    predicted = [_predicted_span(judged, run, int(p)) for p in shown_P]
    colours = colours_of([*truth[:MOST_TRUE], *predicted], run.labels)
    return DenseTimeline(
        item_id=item.item_id,
        video_id=item.video_id,
        duration_s=duration_s,
        num_true=judged.num_true,
        num_found=judged.num_found,
        num_false=judged.num_shown - judged.num_found,
        f1=judged.f1,
        media=media,
        frame_times_s=frame_times_s(duration_s),
        rows=tuple(
            ClassRow(
                label=label,
                colour=colour,
                unseen=label in run.record.unseen,
                true_lanes=lanes([s for s in truth[:MOST_TRUE] if s.label == label], colours, duration_s),
                predicted_lanes=lanes([s for s in predicted if s.label == label], colours, duration_s),
            )
            for label, colour in colours.items()
        ),
        hidden=judged.num_shown - len(predicted),
        hidden_true=max(0, len(truth) - MOST_TRUE),
        ticks=axis_ticks(duration_s),
    )


def _true_spans(judged: DenseJudged, run: ReportedRun) -> list[Span]:
    """In order of time."""
    found = [
        Span(
            start_s=start_s,
            end_s=end_s,
            label=run.record.classes[label],
            wrong=not score >= judged.least,
            verdict="found" if score >= judged.least else "missed",
        )
        for (start_s, end_s), label, score in zip(
            judged.item.true_E2.tolist(),
            judged.item.true_labels_E.tolist(),
            judged.verdict.score_E.tolist(),
            strict=True,
        )
    ]
    return sorted(found, key=lambda span: (span.start_s, span.end_s))


def _predicted_span(judged: DenseJudged, run: ReportedRun, p: int) -> Span:
    kind = int(judged.verdict.kind_P[p])
    start_s, end_s = judged.item.predicted_P2[p].tolist()
    return Span(
        start_s=start_s,
        end_s=end_s,
        label=run.record.classes[int(judged.item.predicted_labels_P[p])],
        score=float(judged.item.scores_P[p]),
        wrong=kind != RIGHT,
        verdict=KINDS[kind],
    )
