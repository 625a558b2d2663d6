"""`avel dataset inspect`: what a data set's annotation files hold, counted, and what is odd in them."""

from __future__ import annotations

import argparse
from collections import Counter
from fractions import Fraction
from typing import Any

from catalog.dataset import SPLITS, Dataset, Item
from jobs.cli.chosen_dataset import load_dataset
from jobs.cli.console import print_json, say, table, visible
from jobs.cli.dataset_options import add_dataset_arguments

HELP = "count a data set's items, events and classes, and list what is odd in its files"
EXAMPLES = """\
examples:
  avel dataset inspect ave --root AVE_Dataset
  avel dataset inspect ovavebench --root meta_anno_files --option train_list=0.25 --json
  avel dataset inspect folder --root my_videos
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset_arguments(parser)


def run(args: argparse.Namespace) -> int:
    dataset = load_dataset(args.name, args.root, args.media, args.option)
    found = summary(dataset)
    if args.json:
        print_json({"root": args.root, **found})
        return 0
    splits: dict[str, dict[str, Any]] = found["splits"]
    if dataset.items:
        columns = ("items", "videos", "seen", "unseen", "events", "without_event", "event_s", "background_s")
        shown = [c for c in columns if any(counts[c] is not None for counts in splits.values())]
        table(
            f"{dataset.name}: {len(dataset.items)} items, {len(dataset.videos)} videos, {len(dataset.classes)} classes",
            ["split", *(column.replace("_", " ") for column in shown)],
            [[split, *(_shown(counts[column]) for column in shown)] for split, counts in splits.items()],
        )
        table(
            "Items and events by class",
            ["class", "index", *splits, "items", "events"],
            [
                [label, index, *(counts[split] for split in splits), counts["items"], counts["events"]]
                for index, (label, counts) in enumerate(found["per_class"].items())
            ],
        )
    else:
        say(f"{dataset.name}: {len(dataset.videos)} videos, no annotations")
    for text in dataset.oddities:
        say(visible(f"odd: {text}"))
    return 0


def summary(dataset: Dataset) -> dict[str, Any]:
    """Counts of a data set, ready for JSON.

    Returns:
        items, videos, classes, num_segments, background, oddities, and
        splits: name to items, videos, seen, unseen (None where the data set has no such thing), events, items
            without_event, event_s and background_s (seconds covered by at least one event or by none; None where
            lengths are not known);
        per_class: label to items of each split and of all (those of the category or with such an event), and events.
    """
    per_class: dict[str, Counter[str]] = {label: Counter() for label in dataset.classes}
    for item in dataset.items:
        for label in {item.category, *(event.label for event in item.events)} - {None}:
            assert label is not None
            per_class[label].update([item.split, "items"])
        for event in item.events:
            per_class[event.label]["events"] += 1
    return {
        "dataset": dataset.name,
        "items": len(dataset.items),
        "videos": len(dataset.videos),
        "classes": list(dataset.classes),
        "num_segments": dataset.num_segments,
        "background": dataset.background,
        "splits": {split: _split_counts(dataset, dataset.split(split)) for split in SPLITS},
        "per_class": {
            label: {key: counts[key] for key in (*SPLITS, "items", "events")} for label, counts in per_class.items()
        },
        "oddities": list(dataset.oddities),
    }


def _split_counts(dataset: Dataset, items: tuple[Item, ...]) -> dict[str, Any]:
    event_s = sum(map(_covered_s, items), Fraction(0))
    lengths_s = [dataset.num_segments or dataset.by_id[item.video_id].duration_s for item in items]
    known = [length_s for length_s in lengths_s if length_s is not None]
    has_seen = any(item.seen is not None for item in dataset.items)
    return {
        "items": len(items),
        "videos": len({item.video_id for item in items}),
        "seen": sum(item.seen is True for item in items) if has_seen else None,
        "unseen": sum(item.seen is False for item in items) if has_seen else None,
        "events": sum(len(item.events) for item in items),
        "without_event": sum(not item.events for item in items),
        "event_s": float(event_s),
        "background_s": float(sum(known, Fraction(0)) - event_s) if len(known) == len(items) else None,
    }


def _covered_s(item: Item) -> Fraction:
    """Seconds that at least one event covers."""
    covered_s = end_s = Fraction(0)
    for event in sorted(item.events, key=lambda event: event.start_s):
        covered_s += max(Fraction(0), event.end_s - max(event.start_s, end_s))
        end_s = max(end_s, event.end_s)
    return covered_s


def _shown(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.1f}"
    return "-" if value is None else value
