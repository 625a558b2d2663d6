"""`avel store inspect STORE`: what a store holds, without reading features."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from catalog.store.reader import open_store
from catalog.store.statistics import all_statistics
from catalog.video import REASONS
from jobs.cli.console import duration, print_json, say, table

HELP = "what a store holds: videos by status and reason, recipes with settings, rows and bytes"

EXAMPLES = """\
examples:
  avel store inspect features
  avel store inspect features --failures      each partial or quarantined video, and why
  avel store inspect features --at v1 --statistics
  avel store inspect s3://bucket/ave --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("--at", metavar="TAG", help="a tag or snapshot id instead of the newest commit")
    parser.add_argument(
        "--statistics", action="store_true", help="also mean, spread, share of NaN and norm (reads every feature)"
    )
    parser.add_argument("--failures", action="store_true", help="list each partial or quarantined video, and why")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    store = open_store(args.store, at=args.at)
    told = _describe(store)
    if args.failures:
        told["failures"] = _failures(store)
    if args.statistics:
        told["statistics"] = {
            name: {modality: asdict(one) for modality, one in both.items()}
            for name, both in all_statistics(store).items()
        }
    if args.json:
        print_json(told)
    else:
        _show(told)
        _show_failures(told.get("failures", []))
    return 0


def _failures(store: Any) -> list[dict[str, Any]]:
    """Each video that is partial or quarantined, under each recipe, in store order."""
    ids = store.video_ids()
    found = []
    for name in store.recipes():
        outcomes = store.outcomes(name)
        for i, status in enumerate(outcomes.status):
            if status in ("partial", "quarantined"):
                told = {"recipe": name, "video": ids[i], "status": status, "reason": outcomes.reason[i]}
                found.append(told | {"attempts": int(outcomes.attempts[i]), "detail": outcomes.detail[i]})
    return found


def _show_failures(failures: list[dict[str, Any]]) -> None:
    if failures:
        columns = list(failures[0])
        table("partial and quarantined, one by one", columns, [list(failure.values()) for failure in failures])


def _describe(store: Any) -> dict[str, Any]:
    table = store.videos()
    seconds = table.duration_s[~np.isnan(table.duration_s)]
    told: dict[str, Any] = {
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
        told["recipes"][name] = {
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
    return told


def _show(told: dict[str, Any]) -> None:
    videos = told["videos"]
    tags = ", ".join(told["tags"]) or "none"
    say(
        f"{told['store']}: snapshot {told['snapshot']}, {told['commits']} commits, tags: {tags}, "
        f"{_size(told['stored_bytes'])} stored"
    )
    share = max(1, videos["total"])
    table(
        f"{videos['total']:,} videos, {duration(videos['duration_s'])}, {_size(videos['media_bytes'])} of media",
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
                _shape(one["visual_shape"]),
                _shape(one["audio_shape"]),
                one["settings"]["storage"],
                f"{one['rows']:,}",
                _size(one["feature_bytes"]),
                *(f"{one['status'].get(status, 0):,}" for status in ("extracted", "partial", "quarantined", "pending")),
            )
            for name, one in told["recipes"].items()
        ],
    )
    for name, one in told["recipes"].items():
        rows = [("fingerprint", one["fingerprint"]), *_leaves(one["settings"])]
        rows += [(f"card.{key}", value) for key, value in _leaves(one["card"])]
        table(f"recipe {name}", ["setting", "value"], rows)
    for name, both in told.get("statistics", {}).items():
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


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}.{key}" if path else key)]


def _shape(shape: list[int] | None) -> str:
    return "-" if shape is None else " x ".join(map(str, shape))


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
