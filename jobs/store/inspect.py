"""`avel store inspect STORE`: what a store holds, without reading features."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from catalog.store.reader import FeatureStore, open_store
from catalog.video import REASONS
from jobs.cli.console import byte_size, duration, leaves, print_json, say, shape_text, table
from jobs.cli.store_options import add_at, add_store

Summary = dict[str, Any]  # printed, or as JSON

HELP = "what a store holds: videos by status and reason, recipes with settings, rows and bytes"

EXAMPLES = """\
examples:
  avel store inspect features
  avel store inspect features --failures      each partial or quarantined video, and why
  avel store inspect features --settings      what each recipe is made with
  avel store inspect features --at v1 --statistics
  avel store inspect s3://bucket/ave --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_at(parser)
    parser.add_argument(
        "--statistics", action="store_true", help="also mean, spread, share of NaN and norm (reads every feature)"
    )
    parser.add_argument("--settings", action="store_true", help="each setting of the recipes, and their cards")
    parser.add_argument("--failures", action="store_true", help="list each partial or quarantined video, and why")


def run(args: argparse.Namespace) -> int:
    store = open_store(args.store, at=args.at)
    summary = _describe(store)
    if args.failures:
        summary["failures"] = _failures(store)
    if args.statistics:
        from catalog.store.statistics import all_statistics  # dask is slow to import, and needed here alone

        summary["statistics"] = {
            name: {modality: asdict(one) for modality, one in both.items()}
            for name, both in all_statistics(store).items()
        }
    if args.json:
        print_json(summary)
    else:
        _show(summary, settings=args.settings)
        _show_failures(summary.get("failures", []))
    return 0


def _failures(store: FeatureStore) -> list[Summary]:
    """Each video that is partial or quarantined, under each recipe, in store order."""
    ids = store.video_ids()
    found = []
    for name in store.recipes():
        outcomes = store.outcomes(name)
        for i, status in enumerate(outcomes.status):
            if status in ("partial", "quarantined"):
                failure = {"recipe": name, "video": ids[i], "status": status, "reason": outcomes.reason[i]}
                found.append(failure | {"attempts": int(outcomes.attempts[i]), "detail": outcomes.detail[i]})
    return found


def _show_failures(failures: list[Summary]) -> None:
    if failures:
        columns = list(failures[0])
        table("partial and quarantined, one by one", columns, [list(failure.values()) for failure in failures])


def _describe(store: FeatureStore) -> Summary:
    table = store.videos()
    seconds = table.duration_s[~np.isnan(table.duration_s)]
    summary: Summary = {
        "store": store.uri,
        "snapshot": store.snapshot_id,
        "commits": len(store.log()),
        "tags": store.tags(),
        "stored_bytes": store.stored_bytes(),
        "videos": {
            "total": len(table),
            "status": dict(sorted(Counter(table.status).items())),
            "reasons": dict(sorted(Counter(reason for reason in table.reason if reason).items())),
            "duration_s": float(seconds.sum()),
            "media_bytes": int(table.bytes[table.bytes > 0].sum()),
        },
        "recipes": {},
    }
    for name, entry in store.recipes().items():
        outcomes = store.outcomes(name)
        values = sum(math.prod(shape) for shape in (entry.visual_shape, entry.audio_shape) if shape is not None)
        summary["recipes"][name] = {
            "settings": json.loads(entry.recipe.to_json()),
            "fingerprint": entry.fingerprint,
            "visual_shape": None if entry.visual_shape is None else list(entry.visual_shape),
            "audio_shape": None if entry.audio_shape is None else list(entry.audio_shape),
            "rows": entry.rows,
            "visual_valid_rows": int(store.row_column(name, "visual_valid").sum()),
            "audio_valid_rows": int(store.row_column(name, "audio_valid").sum()),
            "feature_bytes": entry.rows * values * np.dtype(entry.recipe.storage).itemsize,
            "status": dict(sorted(Counter(outcomes.status).items())),
            "reasons": dict(sorted(Counter(reason for reason in outcomes.reason if reason).items())),
            "card": dict(entry.card),
            "vocabularies": store.vocabularies(name),
        }
    return summary


def _show(summary: Summary, *, settings: bool) -> None:
    videos = summary["videos"]
    tags = ", ".join(summary["tags"]) or "none"
    say(
        f"{summary['store']}: snapshot {summary['snapshot']}, {summary['commits']} commits, tags: {tags}, "
        f"{byte_size(summary['stored_bytes'])} stored"
    )
    share = max(1, videos["total"])
    table(
        f"{videos['total']:,} videos, {duration(videos['duration_s'])}, {byte_size(videos['media_bytes'])} of media",
        ["status", "videos", "share"],
        [(status, f"{count:,}", f"{100 * count / share:.1f}%") for status, count in videos["status"].items()],
    )
    if videos["reasons"]:
        table(
            "reasons",
            ["reason", "videos", "meaning"],
            [(reason, f"{count:,}", REASONS.get(reason, "")) for reason, count in videos["reasons"].items()],
        )
    table(
        "recipes",
        ["recipe", "visual", "audio", "dtype", "rows", "bytes", "extracted", "partial", "quarantined", "pending"],
        [
            (
                name,
                shape_text(one["visual_shape"]),
                shape_text(one["audio_shape"]),
                one["settings"]["storage"],
                f"{one['rows']:,}",
                byte_size(one["feature_bytes"]),
                *(f"{one['status'].get(status, 0):,}" for status in ("extracted", "partial", "quarantined", "pending")),
            )
            for name, one in summary["recipes"].items()
        ],
    )
    for name, one in summary["recipes"].items() if settings else ():
        rows = [("fingerprint", one["fingerprint"]), *leaves(one["settings"])]
        rows += [(f"card.{key}", value) for key, value in leaves(one["card"])]
        table(f"recipe {name}", ["setting", "value"], rows)
    for name, both in summary.get("statistics", {}).items():
        table(
            f"statistics of {name}",
            ["modality", "rows", "valid", "NaN", "mean", "std", "norm", "norm std", "min", "max"],
            [
                (
                    modality,
                    f"{one['rows']:,}",
                    f"{one['valid_rows']:,}",
                    f"{100 * one['nan_share']:.2f}%",
                    *(
                        "-" if one[key] is None else f"{one[key]:.5g}"
                        for key in ("mean", "std", "norm_mean", "norm_std", "minimum", "maximum")
                    ),
                )
                for modality, one in both.items()
            ],
        )
