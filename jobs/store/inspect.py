"""`avel store inspect`: what a store holds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalog.store import FeatureStore

HELP = "what a store holds: recipes, videos by status, failures by reason"
EXAMPLES = """\
examples:
  avel store inspect features
  avel store inspect features --failures        each video that is partial or quarantined, and why
  avel store inspect features --statistics      mean, spread, NaN share and norm of the features (reads them all)
  avel store inspect s3://bucket/features --at v1 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("--at", metavar="TAG", help="a tag or snapshot id (default: the newest commit)")
    parser.add_argument("--failures", action="store_true", help="list partial and quarantined videos")
    parser.add_argument("--statistics", action="store_true", help="statistics of the features")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from catalog.store import open_store
    from jobs.cli import OK
    from jobs.console import print_json

    told = _facts(open_store(args.store, at=args.at), statistics=args.statistics)
    if args.json:
        print_json(told)
    else:
        _show(told, failures=args.failures)
    return OK


def _facts(store: FeatureStore, *, statistics: bool) -> dict[str, Any]:
    import dataclasses
    from collections import Counter

    from catalog.fingerprint import plain
    from pipeline.statistics import all_statistics

    videos = store.videos()
    recipes: dict[str, Any] = {}
    for name, entry in store.recipes().items():
        outcomes = store.outcomes(name)
        recipes[name] = {
            "fingerprint": entry.fingerprint,
            "visual_shape": entry.visual_shape,
            "audio_shape": entry.audio_shape,
            "rows": entry.rows,
            "statuses": dict(sorted(Counter(outcomes.status).items())),
            "reasons": dict(sorted(Counter(filter(None, outcomes.reason)).items())),
            "vocabularies": store.vocabularies(name),
            "card": dict(entry.card),
            "recipe": plain(entry.recipe),
        }
    if statistics:
        for name, by_modality in all_statistics(store).items():
            recipes[name]["statistics"] = {m: dataclasses.asdict(made) for m, made in by_modality.items()}
    failures = [
        {"id": videos.ids[i], "status": videos.status[i], "reason": videos.reason[i], "detail": videos.detail[i]}
        | {"attempts": int(videos.attempts[i])}
        for i in range(len(videos))
        if videos.status[i] not in ("extracted", "pending")
    ]
    newest = store.log()[0]
    return {
        "store": store.uri,
        "snapshot": store.snapshot_id,
        "written_at": newest.written_at.isoformat(timespec="seconds"),
        "message": newest.message,
        "tags": store.tags(),
        "videos": len(videos),
        "media_s": float(videos.duration_s[videos.duration_s > 0].sum()),
        "media_bytes": int(videos.bytes[videos.bytes > 0].sum()),
        "statuses": dict(sorted(Counter(videos.status).items())),
        "reasons": dict(sorted(Counter(filter(None, videos.reason)).items())),
        "recipes": recipes,
        "failures": failures,
    }


def _show(told: dict[str, Any], *, failures: bool) -> None:
    from catalog.video import REASONS
    from jobs.console import duration, say, table, visible

    tags = ", ".join(f"{tag} = {snapshot}" for tag, snapshot in told["tags"].items()) or "none"
    say(f"{visible(told['store'])}: snapshot {told['snapshot']} of {told['written_at']} ({visible(told['message'])})")
    size = f"{duration(told['media_s'])} of media, {told['media_bytes'] / 1e6:.1f} MB"
    say(f"{told['videos']} videos, {size}; tags: {visible(tags)}")
    rows = []
    for name, entry in told["recipes"].items():
        shapes = [
            "-" if entry[f"{m}_shape"] is None else " x ".join(map(str, entry[f"{m}_shape"]))
            for m in ("visual", "audio")
        ]
        grid = entry["recipe"]["grid"]
        counts = [entry["statuses"].get(status, 0) for status in ("extracted", "partial", "quarantined", "pending")]
        rows.append([name, entry["fingerprint"][:12], grid["window_s"], grid["hop_s"], *shapes, entry["rows"], *counts])
    columns = ["recipe", "fingerprint", "window s", "hop s", "visual", "audio", "rows"]
    table("Recipes", [*columns, "extracted", "partial", "quarantined", "pending"], rows)
    if told["reasons"]:
        rows = [[reason, count, REASONS.get(reason, "")] for reason, count in told["reasons"].items()]
        table("Partial and quarantined videos", ["reason", "videos", "which means"], rows)
    if failures:
        rows = [[f["id"], f["status"], f["reason"], f["attempts"], f["detail"]] for f in told["failures"]]
        table("Each of them", ["video", "status", "reason", "attempts", "detail"], rows)
    elif told["failures"]:
        say("--failures lists them")
    rows = [
        [name, modality, *(_figure(made[key]) for key in _STATISTICS)]
        for name, entry in told["recipes"].items()
        for modality, made in entry.get("statistics", {}).items()
    ]
    if rows:
        table("Features", ["recipe", "modality", *(key.replace("_", " ") for key in _STATISTICS)], rows)


_STATISTICS = ("rows", "valid_rows", "nan_share", "mean", "std", "norm_mean", "norm_std", "minimum", "maximum")


def _figure(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
