"""The table of a head's numbers beside those of the trivial baselines, as `avel train` and `avel evaluate` print it."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.console import table

# Metrics shown, in this order, where there are any; the rest are counts.
_METRICS = {
    "accuracy": "accuracy",
    "accuracy_seen": "seen",
    "accuracy_unseen": "unseen",
    "segment_map": "segment mAP",
    "segment_micro_f1": "segment F1",
}
_EXPLAINED = {
    "majority": "majority (commonest class of training)",
    "always_event": "always_event (commonest event class)",
    "class_known": "class_known (told each item's class)",
}


def print_scores(
    title: str,
    head: str,
    metrics: Mapping[str, Mapping[str, float]],
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> None:
    """One row for the head and one a baseline; one column a split and metric, in %.

    Args:
        metrics: split to metric to number.
        baselines: split to baseline to metric to number.
    """
    columns = [(split, key) for split in metrics for key in _METRICS if key in metrics[split]]
    names = list(next(iter(baselines.values()), {}))
    rows = [[head, *(f"{100 * metrics[split][key]:.2f}" for split, key in columns)]]
    for name in names:
        numbers = [baselines[split][name].get(key) for split, key in columns]
        rows.append([_EXPLAINED.get(name, name), *("-" if n is None else f"{100 * n:.2f}" for n in numbers)])
    table(title, ["", *(f"{split} {_METRICS[key]} %" for split, key in columns)], rows)
