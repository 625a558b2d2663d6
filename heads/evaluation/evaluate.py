"""A head's numbers on a split, and those of the trivial baselines on the same segments.

N items, T segments, K classes (background not included), S counted segments. Every counted segment counts, also those
without features: they are predicted as background (no class).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.dataset import Dataset
from heads.blocks.losses import binary_cross_entropy, cross_entropy
from heads.data.split import Split
from heads.data.targets import has_one_label, training_labels, truth
from heads.evaluation import baselines as trivial
from heads.evaluation.predict import THRESHOLD, event_flags, logits, probabilities
from heads.evaluation.protocol import class_metrics, headline, seen_classes, seen_items, tells_seen
from heads.evaluation.run_filter import filter_runs
from heads.metrics import ave, segments
from heads.metrics.confusion_seen_unseen import SeenUnseenConfusion, confusion_seen_unseen
from heads.runs.record import Numbers, Row
from heads.spec import Head


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics and predictions of a head on a split.

    Attributes:
        metrics: with one label `accuracy` or, where there are seen and unseen classes, OV-AVEBench's measures; else
            `segment_map` (where any segment has a class) and `segment_micro_f1`; always `loss` (of real segments, where
            there are any) and counts. Of events those of `heads.evaluation.evaluate_dense`.
        rows: one JSON-able object an item, for `predictions_{split}.json`; as predicted, without the run filter.
        confusion: (K + 1, K + 1) counts, rows true; None with several labels, and of events.
        seen_unseen: `confusion` in two: of items of seen and of unseen classes; None where there are none such.
        smoothed: the measures after the run filter; None where it was not asked for.
    """

    metrics: Numbers
    rows: list[Row]
    confusion: NDArray[np.int64] | None
    seen_unseen: SeenUnseenConfusion | None = None
    smoothed: Numbers | None = None


def evaluate(
    head: Head, split: Split, dataset: Dataset, *, device: str = "cpu", smooth: int | None = None
) -> Evaluation:
    """Evaluate a head that scores segments on a split.

    Args:
        smooth: the run filter's least run, in segments, for `smoothed`.

    Raises:
        ValueError: `smooth` with several labels a segment, or below 1.
    """
    logits_NTK = logits(head, split, device=device)
    one_label = has_one_label(dataset)
    true = truth(dataset, split.items, split.recipe.grid, split.num_segments)
    probabilities_NTK = probabilities(logits_NTK, split.mask_NT, one_label=one_label)
    counts: Numbers = {
        "items": len(split.items),
        "items_without_features": len(split.absent),
        "segments": int(split.counted_NT.sum()),
        "segments_without_features": int((split.counted_NT & ~split.mask_NT).sum()),
    }
    loss = mean_loss(logits_NTK, true, split.mask_NT)
    if loss is not None:
        counts["loss"] = loss
    if not one_label:
        if smooth is not None:
            raise ValueError(f"the run filter needs one class a segment, {dataset.name} has several")
        labels = np.asarray(true, dtype=bool)
        counts |= _segment_metrics(probabilities_NTK, labels, split.counted_NT)
        return Evaluation(metrics=counts, rows=_rows_of_labels(probabilities_NTK, labels, split), confusion=None)
    classes_NT = np.asarray(true, dtype=np.int64)
    predicted_NT = ave.decide(probabilities_NTK)
    flagged_NT = event_flags(head, split, device=device)
    smoothed = None
    if smooth is not None:
        filtered_NT = filter_runs(predicted_NT, minimum=smooth, mask_NT=split.mask_NT)
        smoothed = _class_metrics(filtered_NT, classes_NT, split, dataset)
    seen_N = _seen(split, dataset)
    num_outputs = len(dataset.classes) + 1
    return Evaluation(
        metrics=_class_metrics(predicted_NT, classes_NT, split, dataset, flagged_NT) | counts,
        rows=_rows_of_classes(probabilities_NTK, predicted_NT, classes_NT, split, seen_N),
        confusion=ave.confusion(predicted_NT, classes_NT, num_outputs, split.counted_NT),
        seen_unseen=None
        if seen_N is None
        else confusion_seen_unseen(predicted_NT, classes_NT, seen_N, num_outputs, split.counted_NT),
        smoothed=smoothed,
    )


def judge(
    logits_NTK: NDArray[np.float32], true: NDArray[np.int64] | NDArray[np.bool_], split: Split, dataset: Dataset
) -> Numbers:
    """The number that chooses an epoch, by its name; empty where it is not defined. Cheaper than all of `evaluate`.

    It is the one that counts or, where classes are held out of training, that of the others: of what is held out
    nothing may be decided.

    Args:
        true: as `heads.data.targets.truth` gives it.
    """
    name = headline(dataset)
    if has_one_label(dataset):
        predicted_NT = np.where(split.mask_NT, ave.decide(logits_NTK), len(dataset.classes))
        return {name: _class_metrics(predicted_NT, np.asarray(true, dtype=np.int64), split, dataset)[name]}
    # What has no features scores nothing.
    scores_SK = probabilities(logits_NTK, split.mask_NT, one_label=False)[split.counted_NT]
    true_SK = np.asarray(true, dtype=bool)[split.counted_NT]
    if dataset.unseen:
        name, seen_C = f"{name}_seen", seen_classes(dataset)
        scores_SK, true_SK = scores_SK[:, seen_C], true_SK[:, seen_C]
    return {name: segments.mean_average_precision(scores_SK, true_SK)} if true_SK.any() else {}


def mean_loss(
    logits_NTK: NDArray[np.float32], true: NDArray[np.int64] | NDArray[np.bool_], mask_NT: NDArray[np.bool_]
) -> float | None:
    """The training loss, a real segment; None where no segment is real."""
    if not mask_NT.any():
        return None
    loss = cross_entropy if true.ndim == 2 else binary_cross_entropy
    sums, numbers = loss(torch.from_numpy(logits_NTK), torch.from_numpy(true), torch.from_numpy(mask_NT))
    return float(sums.double().sum() / numbers.sum())


def baselines(split: Split, dataset: Dataset) -> dict[str, Numbers]:
    """The trivial baselines on `split`, decided from the labels of the training split (with or without features).

    With one label: `majority`, `always_event`, and `class_known`, which knows each item's class.
    With several: `majority`, which scores each class by its share of training segments.
    """
    grid = split.recipe.grid
    train_labels = training_labels(dataset, grid)
    true = truth(dataset, split.items, grid, split.num_segments)
    num_classes = len(dataset.classes)
    if not has_one_label(dataset):
        shares_K = trivial.class_shares(np.asarray(train_labels, dtype=bool)).astype(np.float32)
        scores = np.broadcast_to(shares_K, true.shape)
        return {"majority": _segment_metrics(scores, np.asarray(true, dtype=bool), split.counted_NT)}
    train_classes, classes_NT = np.asarray(train_labels, dtype=np.int64), np.asarray(true, dtype=np.int64)
    constant = {
        "majority": trivial.majority(train_classes, num_classes),
        "always_event": trivial.always_event(train_classes, num_classes),
    }
    predictions = {name: np.full_like(classes_NT, k) for name, k in constant.items()}
    predictions["class_known"] = trivial.class_known(classes_NT, num_classes)
    return {name: _class_metrics(p_NT, classes_NT, split, dataset) for name, p_NT in predictions.items()}


def _class_metrics(
    predicted_NT: NDArray[np.int64],
    true_NT: NDArray[np.int64],
    split: Split,
    dataset: Dataset,
    flagged_NT: NDArray[np.bool_] | None = None,
) -> Numbers:
    return class_metrics(
        predicted_NT,
        true_NT,
        split.counted_NT,
        background=len(dataset.classes),
        seen_N=_seen(split, dataset),
        flagged_NT=flagged_NT,
    )


def _seen(split: Split, dataset: Dataset) -> NDArray[np.bool_] | None:
    return seen_items(split.items) if tells_seen(dataset) else None


def _segment_metrics(
    scores_NTK: NDArray[np.float32], true_NTK: NDArray[np.bool_], counted_NT: NDArray[np.bool_]
) -> Numbers:
    scores_SK, true_SK = scores_NTK[counted_NT], true_NTK[counted_NT]
    precision = {"segment_map": segments.mean_average_precision(scores_SK, true_SK)} if true_SK.any() else {}
    return precision | {"segment_micro_f1": segments.micro_f1(scores_SK >= THRESHOLD, true_SK)}


def _rows_of_classes(
    probabilities_NTK: NDArray[np.float32],
    predicted_NT: NDArray[np.int64],
    true_NT: NDArray[np.int64],
    split: Split,
    seen_N: NDArray[np.bool_] | None,
) -> list[Row]:
    score_NT = np.take_along_axis(probabilities_NTK, predicted_NT[..., None], axis=-1)[..., 0]
    score_NT = np.where(split.mask_NT, score_NT, 0.0)
    rows = []
    for n, item in enumerate(split.items):
        count = int(split.counted_NT[n].sum())
        rows.append(
            {
                "item": item.id,
                "video": item.video_id,
                "labels_pred": predicted_NT[n, :count].tolist(),
                "labels_true": true_NT[n, :count].tolist(),
                "score": [round(float(score), 6) for score in score_NT[n, :count]],
                "mask": split.mask_NT[n, :count].tolist(),
            }
            | ({} if seen_N is None else {"seen": bool(seen_N[n])})
        )
    return rows


def _rows_of_labels(probabilities_NTK: NDArray[np.float32], true_NTK: NDArray[np.bool_], split: Split) -> list[Row]:
    """As above with a list of classes a segment: those held, and the scores of those held."""
    rows = []
    for n, item in enumerate(split.items):
        count = int(split.counted_NT[n].sum())
        held = [np.flatnonzero(p >= THRESHOLD) for p in probabilities_NTK[n, :count]]
        rows.append(
            {
                "item": item.id,
                "video": item.video_id,
                "labels_pred": [k.tolist() for k in held],
                "labels_true": [np.flatnonzero(t).tolist() for t in true_NTK[n, :count]],
                "score": [
                    [round(float(p[k]), 6) for k in ks]
                    for p, ks in zip(probabilities_NTK[n, :count], held, strict=True)
                ],
                "mask": split.mask_NT[n, :count].tolist(),
            }
        )
    return rows
