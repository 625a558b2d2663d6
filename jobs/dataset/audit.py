"""`avel dataset audit`: which media of a data set are there, and which cannot be used, without decoding any."""

from __future__ import annotations

import argparse
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Sequence
from typing import Any

from catalog.media import list_sizes, local_path
from catalog.video import Video
from jobs.cli.chosen_dataset import load_dataset
from jobs.cli.console import Progress, print_json, say, table, visible
from jobs.cli.dataset_options import add_dataset_arguments

HELP = "check that a data set's media are there and not empty; optionally find equal files"
EXAMPLES = """\
examples:
  avel dataset audit ave --root AVE_Dataset --media AVE_Dataset/AVE
  avel dataset audit folder --root my_videos --duplicates --json

exit status: 0 every medium is there; 1 some are missing, empty or unreadable
"""

SHOWN = 20  # problems in the table; --json has them all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset_arguments(parser)
    parser.add_argument("--duplicates", action="store_true", help="find local files of equal content (reads them)")


def run(args: argparse.Namespace) -> int:
    dataset = load_dataset(args.name, args.root, args.media, args.option)
    sizes, problems = check(dataset.videos)
    equal = duplicates(dataset.videos, sizes, quiet=args.json) if args.duplicates else None
    found: dict[str, Any] = {
        "dataset": dataset.name,
        "root": args.root,
        "videos": len(dataset.videos),
        "usable": len(sizes),
        "bytes": sum(sizes.values()),
        "problems": problems,
        "duplicates": equal,
        "oddities": list(dataset.oddities),
    }
    if args.json:
        print_json(found)
        return int(bool(problems))
    say(f"{dataset.name}: {len(sizes)} of {len(dataset.videos)} media are usable ({found['bytes'] / 1e6:,.1f} MB)")
    if problems:
        counts = Counter(problem["reason"] for problem in problems)
        table(
            ", ".join(f"{count} {reason}" for reason, count in counts.most_common()),
            ("video", "reason", "expected at"),
            [(problem["id"], problem["reason"], problem["uri"]) for problem in problems[:SHOWN]],
        )
        if len(problems) > SHOWN:
            say(f"... and {len(problems) - SHOWN} more; --json lists them all")
    for ids in equal or ():
        say(visible(f"equal: {', '.join(ids)}"))
    for text in dataset.oddities:
        say(visible(f"odd: {text}"))
    return int(bool(problems))


def check(videos: Sequence[Video]) -> tuple[dict[str, int], list[dict[str, str]]]:
    """Bytes of each usable medium by id, and the others with a reason of `catalog.video.REASONS`.

    Remote media are looked up by one listing of each folder; where none can be had they count as `fetch_failed`.
    """
    sizes: dict[str, int] = {}
    problems = []
    listings: dict[str, dict[str, int] | None] = {}
    for video in videos:
        path = local_path(video.uri)
        if path is not None:
            found = _check_local(path)
        else:
            folder, _, name = video.uri.rpartition("/")
            if folder not in listings:
                listings[folder] = list_sizes(folder)
            listing = listings[folder]
            found = "fetch_failed" if listing is None else listing.get(name, "missing_file")
        found = "empty_file" if found == 0 else found
        if isinstance(found, int):
            sizes[video.id] = max(found, 0)  # -1: a server that does not say
        else:
            problems.append({"id": video.id, "uri": video.uri, "reason": found})
    return sizes, problems


def duplicates(videos: Sequence[Video], sizes: dict[str, int], *, quiet: bool) -> list[list[str]]:
    """Groups of videos whose local files have equal content; only files of equal size are read."""
    same_size: dict[int, list[Video]] = {}
    for video in videos:
        if video.id in sizes and local_path(video.uri) is not None:
            same_size.setdefault(sizes[video.id], []).append(video)
    suspects = [video for group in same_size.values() if len(group) > 1 for video in group]
    groups: dict[str, list[str]] = {}
    with Progress("compare", len(suspects), "files", quiet=quiet) as progress:
        for video in suspects:
            with open(str(local_path(video.uri)), "rb") as file:
                groups.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), []).append(video.id)
            progress.advance()
    return [ids for ids in groups.values() if len(ids) > 1]


def _check_local(path: str) -> int | str:
    """Bytes, or the reason why it cannot be used."""
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return "unreadable_path" if os.path.islink(path) else "missing_file"
    except OSError:
        return "unreadable_path"
    if not stat.S_ISREG(state.st_mode):
        return "not_a_file"
    return state.st_size if os.access(path, os.R_OK) else "unreadable_path"
