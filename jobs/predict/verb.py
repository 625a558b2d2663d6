"""`avel predict`: a trained head on new media, from the media themselves to events."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli.recipe_options import add_weights

if TYPE_CHECKING:
    from catalog.event import Prediction
    from catalog.store.reader import FeatureStore
    from catalog.video import Video
    from heads.runs.folder import Run
    from pipeline.run_summary import RunSummary

HELP = "events in new media, by a trained head"
EXAMPLES = """\
examples:
  avel predict runs/linear clip.mp4
  avel predict runs/linear media/ 'more/*.webm' https://example.org/a.mp4 --out events.json --plot events.png
  avel predict runs/ave-clip media/ --weights AudioCLIP-Full-Training.pt
  avel predict runs/ov clip.mp4 --vocabulary kitchen      other classes: only their texts are needed, see avel labels
  avel predict runs/ov clip.mp4 --vocabulary mine --labels features --smooth 3
  avel predict runs/loco lecture.mp4 --threshold 0.3      an hour goes through the head in overlapping windows
Media are extracted with the recipe that the head was trained on, into a store that is thrown away afterwards.
Exit status: 0 all media have predictions; 3 some have not (listed with the reason); 1 failed; 2 bad arguments.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="what `avel train` wrote")
    parser.add_argument("media", nargs="+", metavar="MEDIA", help="a file, folder, glob, list file or URL")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the events on timelines (.png, .svg or .pdf)")
    parser.add_argument(
        "--threshold",
        type=float,
        help="least probability of a class, for data sets with several labels (default: 0.5), or least score of an "
        "event, for heads that find events with times of their own (default: 0.1)",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="classes to choose among, for heads with class texts: what `avel labels` stored",
    )
    parser.add_argument(
        "--labels", metavar="STORE", help="the store that holds the vocabulary (default: the one trained on)"
    )
    parser.add_argument(
        "--smooth", type=int, metavar="W", help="run filter: fewer than W equal neighbours are taken for mistakes"
    )
    add_weights(parser)
    parser.add_argument("--workers", type=int, default=1, help="media opened at once (default: %(default)s)")


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
    from catalog.errors import BadArguments
    from catalog.store.reader import open_store
    from catalog.whole_file import write_atomically
    from heads.registry import is_dense
    from heads.runs.folder import read_run
    from jobs.cli.chosen_recipes import device as device_of
    from jobs.cli.chosen_recipes import with_weights
    from jobs.cli.console import Progress, print_json
    from jobs.cli.main import OK, QUARANTINED
    from jobs.predict.plot import FORMATS, draw
    from pipeline.extract import ExtractOptions, extract

    _check(args, FORMATS)
    trained = read_run(args.run_folder)
    one_label = trained.record.background is not None and not is_dense(trained.record.head)
    if one_label and args.threshold is not None:
        raise BadArguments("--threshold is for data sets with several labels; here the likeliest class of each wins")
    if args.smooth is not None and not one_label:
        raise BadArguments("--smooth is for data sets with one class a segment")
    classes = _classes(trained, args)
    (recipe,), weights = with_weights([trained.record.recipe], args.weights)
    device, _ = device_of(args.device, [recipe])
    videos = _videos(args.media)
    with tempfile.TemporaryDirectory(prefix="avel-predict-") as folder:
        place = os.path.join(folder, "store")
        with Progress("extract", len(videos), "videos", quiet=args.json) as progress:

            def on_progress(summary: RunSummary) -> None:
                progress.advance(sum(summary.statuses.values()) - progress.done)

            extract(
                videos,
                [recipe],
                place,
                ExtractOptions(workers=args.workers, weights=weights, device=device),
                on_progress=on_progress,
            )
        found = _predict(
            trained, classes, videos, open_store(place), threshold=args.threshold, smooth=args.smooth, device=device
        )

    result = {
        "run": str(args.run_folder),
        "head": trained.record.head,
        "recipe": recipe.name,
        "classes": list(classes),
        "vocabulary": args.vocabulary or (trained.record.texts or {}).get("vocabulary"),
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
        _tell(found, args)
    return QUARANTINED if any(one.failed for one in found) else OK


def _check(args: argparse.Namespace, formats: Sequence[str]) -> None:
    """Refuse what would fail only after the extraction."""
    from catalog.errors import BadArguments

    if args.plot and args.plot.suffix.lower() not in formats:
        raise BadArguments(f"--plot needs a file ending in {', '.join(formats)}, got {args.plot}")
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
    from dataclasses import replace

    from catalog import dataset
    from catalog.errors import BadArguments
    from catalog.media import is_url, media_suffix, text_of, uri_of
    from catalog.video import Video

    videos: dict[str, Video] = {}
    uris = set()
    for source in sources:
        gone = not os.path.lexists(source) and not is_url(source) and media_suffix(source) and not _has_magic(source)
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


def _has_magic(source: str) -> bool:
    import glob

    return glob.has_magic(source)


def _classes(trained: Run, args: argparse.Namespace) -> tuple[str, ...]:
    """The classes to choose among; those of --vocabulary are handed to the head."""
    from catalog.errors import BadArguments
    from catalog.store.reader import open_store
    from heads.data.split import find_recipe
    from heads.data.vocabulary import hand_over, of_store
    from jobs.cli.console import note

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
    hand_over(trained.head, new)
    return new.classes


def _predict(
    trained: Run,
    classes: tuple[str, ...],
    videos: Sequence[Video],
    store: FeatureStore,
    *,
    threshold: float | None,
    smooth: int | None,
    device: str,
) -> list[_Predicted]:
    import numpy as np

    from catalog.dataset import Dataset, Item
    from heads.data.split import find_recipe, read_split
    from heads.evaluation.media_events import looked_at, media_events
    from heads.registry import spec

    record = trained.record
    # New classes may be called as the background was; here it only stands for there being one.
    background = None if record.background is None else next(b for b in (record.background, "") if b not in classes)
    items = tuple(Item(id=video.id, video_id=video.id, split="test", events=()) for video in videos)
    media = Dataset(
        name="media",
        classes=classes,
        items=items,
        videos=tuple(videos),
        num_segments=None,
        background=background,
    )
    name = find_recipe(store, record.recipe)
    split = read_split(store, name, media, "test", pool_places=spec(record.head).pools_places)
    table, outcomes = store.videos(), store.outcomes(name)
    place = {video_id: i for i, video_id in enumerate(table.ids)}
    at = [place[video.id] for video in videos]
    durations_s = [float(s) if np.isfinite(s) else None for s in np.asarray(table.duration_s, dtype=float)[at]]
    found = media_events(
        trained.head.to(device),
        split,
        classes,
        durations_s,
        one_label=record.background is not None,
        threshold=threshold,
        smooth=smooth,
        device=device,
    )
    seen_N = looked_at(split, record.training.get("modality", "both"))
    return [
        _Predicted(
            video=video,
            status=outcomes.status[i],
            reason=outcomes.reason[i],
            detail=outcomes.detail[i],
            duration_s=duration_s,
            events=tuple(events) if seen else (),
            failed=not seen,
        )
        for video, i, duration_s, events, seen in zip(videos, at, durations_s, found, seen_N.tolist(), strict=True)
    ]


def _tell(found: Sequence[_Predicted], args: argparse.Namespace) -> None:
    from jobs.cli.console import say, table

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
