"""The table of a head's numbers beside those of the trivial baselines, as `avel train` and `avel evaluate` print it."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.cli.console import table

# Metrics shown, in this order, where there are any; the rest are counts.
_METRICS = {
    "accuracy": "accuracy",
    "segment_f1": "segment F1",
    "event_f1": "event F1",
    "mean": "mean",
    "segment_map": "segment mAP",
    "segment_micro_f1": "segment F1",
    **{f"map_0.{tenth}": f"mAP@0.{tenth}" for tenth in range(5, 10)},
    "average_map": "mAP 0.1:0.9",
}
_EXPLAINED = {
    "majority": "majority (commonest class of training)",
    "always_event": "always_event (commonest event class)",
    "class_known": "class_known (given each item's class)",
    "whole_video": "whole_video (each class, all the time)",
    "mean_length": "mean_length (each class, in the middle)",
}


def print_scores(
    title: str,
    head: str,
    metrics: Mapping[str, Mapping[str, float | str]],
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> None:
    """One row for the head and one a baseline; one column a split and metric, in %.

    Where there are seen and unseen classes, one table a split, and a row for each of seen, unseen and all.

    Args:
        metrics: split to metric to number, or to a text that is shown as it is.
        baselines: split to baseline to metric to number.
    """
    if any(key.endswith(("_seen", "_unseen")) for numbers in metrics.values() for key in numbers):
        for split in metrics:
            _print_groups(
                title if len(metrics) == 1 else f"{title}; {split}", head, metrics[split], baselines.get(split, {})
            )
        return
    columns = [(split, key) for split in metrics for key in _METRICS if key in metrics[split]]
    names = list(next(iter(baselines.values()), {}))
    rows = [[head, *(_cell(metrics[split][key]) for split, key in columns)]]
    for name in names:
        numbers = [baselines[split][name].get(key) for split, key in columns]
        rows.append([_EXPLAINED.get(name, name), *map(_cell, numbers)])
    table(title, ["", *(f"{split} {_METRICS[key]} %" for split, key in columns)], rows)


def _print_groups(
    title: str, head: str, metrics: Mapping[str, float | str], baselines: Mapping[str, Mapping[str, float]]
) -> None:
    keys = [key for key in _METRICS if key in metrics]
    rows: list[list[object]] = []
    for name, numbers in {head: metrics, **baselines}.items():
        group_rows = 0
        for group, suffix in (("seen", "_seen"), ("unseen", "_unseen"), ("total", "")):
            shown = [numbers.get(key + suffix) for key in keys]
            if any(number is not None for number in shown):
                rows.append([_EXPLAINED.get(name, name) if not group_rows else "", group, *map(_cell, shown)])
                group_rows += 1
    table(title, ["", "classes", *(f"{_METRICS[key]} %" for key in keys)], rows)


def _cell(number: float | str | None) -> str:
    if number is None:
        return "-"
    return number if isinstance(number, str) else f"{100 * number:.2f}"
