"""Predicts events of media as `avel predict` asks for: extraction into a store for the moment, then the head."""

from __future__ import annotations

import argparse
import glob
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from catalog import dataset
from catalog.dataset import Dataset, Item
from catalog.errors import BadArguments
from catalog.event import Prediction
from catalog.media import is_url, media_suffix, text_of, uri_of
from catalog.recipe import Recipe
from catalog.store.reader import FeatureStore, open_store
from catalog.video import Video
from catalog.whole_file import write_atomically
from heads.data.split import find_recipe, read_split
from heads.data.vocabulary import hand_over, of_store
from heads.evaluation.media_events import has_features
from heads.registry import spec
from heads.runs.folder import Run, read_run
from heads.runs.record import RunRecord
from heads.training.settings import Settings
from heads.training.task import Task, make_task
from jobs.cli.chosen_recipes import Weights, with_weights
from jobs.cli.chosen_recipes import device as device_of
from jobs.cli.console import Progress, note, print_json, say, table
from jobs.cli.main import OK, QUARANTINED
from jobs.predict.plot import FORMATS, draw
from pipeline.extract import ExtractOptions, extract
from pipeline.run_summary import RunSummary


@dataclass(frozen=True, kw_only=True)
class _Predicted:
    """One medium's events, or why there are none.

    Attributes:
        failed: no segment has a feature that the head looks at.
    """

    video: Video
    status: str
    reason: str
    detail: str
    duration_s: float | None
    events: tuple[Prediction, ...]
    failed: bool

    @property
    def reach_s(self) -> float:
        """The duration or, where it is not known, the end of the last event."""
        return self.duration_s or max((event.end_s for event in self.events), default=0.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "video": self.video.id,
            "uri": self.video.uri,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
            "duration_s": self.duration_s,
            "failed": self.failed,
            "events": [
                {"class": e.label, "start_s": e.start_s, "end_s": e.end_s, "score": round(e.score, 6)}
                for e in self.events
            ],
        }


def run(args: argparse.Namespace) -> int:
    """`avel predict`; the exit status."""
    _check(args)
    trained = read_run(args.run_folder)
    record = trained.record
    (recipe,), weights = with_weights([record.recipe], args.weights)
    device, _ = device_of(args.device, [recipe])
    classes = _classes(trained, args)
    media = _media(record, classes, _videos(args.media))
    task = make_task(record.head, media, Settings(device=device))
    if args.threshold is not None and not task.uses_threshold:
        raise BadArguments("--threshold is for data sets with several labels; here the likeliest class of each wins")
    if args.smooth is not None and not task.uses_run_filter:
        raise BadArguments("--smooth is for data sets with one class a segment")
    trained.head.to(device)
    with tempfile.TemporaryDirectory(prefix="avel-predict-") as folder:
        store = _extracted(args, media.videos, recipe, weights, folder=folder, device=device)
        found = _predict(trained, task, media, store, args)

    result = {
        "run": str(args.run_folder),
        "head": record.head,
        "recipe": recipe.name,
        "classes": list(classes),
        "vocabulary": args.vocabulary or (record.texts or {}).get("vocabulary"),
        "smooth": args.smooth,
        "videos": [one.to_json() for one in found],
        "failed": sum(one.failed for one in found),
    }
    if args.out:
        write_atomically(args.out, json.dumps(result, indent=1, allow_nan=False) + "\n")
    if args.plot:
        lanes = [(one.video.id, None if one.failed else one.reach_s, one.events) for one in found]
        draw(lanes, classes, args.plot, title=f"{args.run_folder}: predicted events")
    if args.json:
        print_json(result)
    else:
        _print_summary(found, args)
    return QUARANTINED if any(one.failed for one in found) else OK


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail only after the extraction."""
    if args.plot and args.plot.suffix.lower() not in FORMATS:
        raise BadArguments(f"--plot needs a file ending in {', '.join(FORMATS)}, got {args.plot}")
    for option, path in (("--plot", args.plot), ("--out", args.out)):
        if path and not path.absolute().parent.is_dir():
            raise BadArguments(f"{option} {path}: the folder {path.absolute().parent} does not exist")
        if path and path.exists() and not path.is_file():  # a folder, or a device such as /dev/null
            raise BadArguments(f"{option} {path} is there and is no file that could be replaced")
        if path and path.absolute() == (args.run_folder / "run.json").absolute():
            raise BadArguments(f"{option} {path} is the run's own record; choose another file")
    if args.threshold is not None and not 0 < args.threshold <= 1:
        raise BadArguments(f"--threshold must lie above 0 and be at most 1, got {args.threshold}")
    if args.smooth is not None and args.smooth < 1:
        raise BadArguments(f"--smooth must be at least 1, got {args.smooth}")
    if args.labels and args.vocabulary is None:
        raise BadArguments("--labels goes with --vocabulary")
    if args.workers < 1:
        raise BadArguments(f"--workers must be at least 1, got {args.workers}")


def _videos(sources: Sequence[str]) -> tuple[Video, ...]:
    """The media of all sources, each once, ids made distinct. A named file that is not there becomes a row too."""
    videos: dict[str, Video] = {}
    uris = set()
    for source in sources:
        gone = (
            not os.path.lexists(source) and not is_url(source) and media_suffix(source) and not glob.has_magic(source)
        )
        try:
            found = (
                (Video(id=text_of(os.path.basename(source)), uri=uri_of(source)),)
                if gone
                else dataset.load("folder", source).videos
            )
        except ValueError as error:
            raise BadArguments(str(error)) from error
        for video in found:
            if video.uri in uris:
                continue
            uris.add(video.uri)
            distinct, number = video.id, 1
            while distinct in videos:
                number += 1
                distinct = f"{video.id} ({number})"
            videos[distinct] = replace(video, id=distinct)
    return tuple(videos.values())


def _classes(trained: Run, args: argparse.Namespace) -> tuple[str, ...]:
    """The classes to choose among; those of --vocabulary are handed to the head."""
    record = trained.record
    if args.vocabulary is None:
        return record.classes
    if record.texts is None:
        raise BadArguments(f"--vocabulary: head {record.head} does not choose among class texts")
    store = open_store(args.labels or record.store["uri"])
    try:
        new = of_store(store, find_recipe(store, record.recipe), args.vocabulary, background=record.texts["background"])
    except ValueError as error:
        raise BadArguments(f"--vocabulary: {error}") from error
    if new.prompt != record.texts["prompt"]:
        note(
            f"avel predict: warning: vocabulary {new.name} was made with prompt {new.prompt!r}, "
            f"the head was trained with {record.texts['prompt']!r}"
        )
    hand_over(trained.head, new, background=spec(record.head).scores_background)
    return new.classes


def _media(record: RunRecord, classes: tuple[str, ...], videos: tuple[Video, ...]) -> Dataset:
    """The media as a data set without annotations, whose items are one a video."""
    # New classes may be called as the background was; here it only stands for there being one.
    background = None if record.background is None else next(b for b in (record.background, "") if b not in classes)
    return Dataset(
        name="media",
        classes=classes,
        items=tuple(Item(id=video.id, video_id=video.id, split="test", events=()) for video in videos),
        videos=videos,
        num_segments=None,
        background=background,
    )


def _extracted(
    args: argparse.Namespace, videos: Sequence[Video], recipe: Recipe, weights: Weights, *, folder: str, device: str
) -> FeatureStore:
    """A store of the videos' features, in `folder`."""
    store = os.path.join(folder, "store")
    with Progress("extract", len(videos), "videos") as progress:

        def on_progress(summary: RunSummary) -> None:
            progress.advance(sum(summary.statuses.values()) - progress.done)

        extract(
            videos,
            [recipe],
            store,
            ExtractOptions(workers=args.workers, weights=weights, device=device),
            on_progress=on_progress,
        )
    return open_store(store)


def _predict(
    trained: Run, task: Task, media: Dataset, store: FeatureStore, args: argparse.Namespace
) -> list[_Predicted]:
    record = trained.record
    name = find_recipe(store, record.recipe)
    split = read_split(store, name, media, "test", pool_places=spec(record.head).pools_places)
    table_of, outcomes = store.videos(), store.outcomes(name)
    row_of = {video_id: row for row, video_id in enumerate(table_of.ids)}
    rows = [row_of[video.id] for video in media.videos]
    durations_s = [float(s) if np.isfinite(s) else None for s in np.asarray(table_of.duration_s, dtype=float)[rows]]
    found = task.predict(trained.head, split, durations_s, threshold=args.threshold, smooth=args.smooth)
    seen_N = has_features(split, record.training.get("modality", "both"))
    return [
        _Predicted(
            video=video,
            status=outcomes.status[row],
            reason=outcomes.reason[row],
            detail=outcomes.detail[row],
            duration_s=duration_s,
            events=tuple(events) if seen else (),
            failed=not seen,
        )
        for video, row, duration_s, events, seen in zip(
            media.videos, rows, durations_s, found, seen_N.tolist(), strict=True
        )
    ]


def _print_summary(found: Sequence[_Predicted], args: argparse.Namespace) -> None:
    rows: list[list[object]] = []
    for one in found:
        for event in one.events:
            seconds = (f"{event.start_s:.2f}", f"{event.end_s:.2f}", f"{event.score:.3f}")
            rows.append([one.video.id, event.label, *seconds])
        if not one.events and not one.failed:
            rows.append([one.video.id, "no event", "", "", ""])
    if rows:
        table("Events", ["video", "class", "start s", "end s", "score"], rows)
    odd = [one for one in found if one.failed or one.reason]
    if odd:
        lines = [[one.video.id, "none" if one.failed else "made", one.reason, one.detail] for one in odd]
        table("Not as it should be", ["video", "prediction", "reason", "detail"], lines)
    for path in (args.out, args.plot):
        if path:
            say(f"written: {path}")
