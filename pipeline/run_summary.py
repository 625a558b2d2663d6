"""Counts and speed of a run."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from catalog.video import Outcome


@dataclass(kw_only=True)
class RunSummary:
    """Counts and times of one run of `extract`.

    Attributes:
        wanted: videos asked for.
        skipped: of them, those that needed nothing.
        executor, workers: what ran it; "none" and 0 where there was nothing to do.
        statuses, reasons: of the videos that this run worked on.
        store_statuses, store_reasons: of all wanted videos as the store has them after the run; the worst over the
            wanted recipes counts; "pending" ones were not reached.
        media_s: seconds of media decoded, over the videos that came out.
        segments: feature rows written, over all recipes.
        wall_s: from the first unit's start to the last commit, start-up of workers and encoders left out.
        startup_s: start-up of workers and encoders.
        decode_s, encode_s, write_s: seconds of work, summed over workers.
        commits: how many snapshots were made.
        snapshot: the store's snapshot after the run.
        stopped: the run was stopped before its end.
    """

    wanted: int
    skipped: int
    executor: str = "none"
    workers: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    store_statuses: Counter[str] = field(default_factory=Counter)
    store_reasons: Counter[str] = field(default_factory=Counter)
    media_s: float = 0.0
    segments: int = 0
    wall_s: float = 0.0
    startup_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0
    commits: int = 0
    snapshot: str = ""
    stopped: bool = False

    @property
    def quarantined(self) -> int:
        """Wanted videos that are quarantined in the store."""
        return self.store_statuses["quarantined"]

    @property
    def times_real_time(self) -> float:
        """Seconds of media a second of wall clock; 0 where nothing was decoded."""
        return self.media_s / self.wall_s if self.wall_s else 0.0

    @property
    def segments_per_s(self) -> float:
        """Feature rows a second of wall clock."""
        return self.segments / self.wall_s if self.wall_s else 0.0

    def shares(self) -> dict[str, float]:
        """Share of the work's time in decode, encode and write; they add up to 1 (all 0 where nothing was done)."""
        spent = {"decode": self.decode_s, "encode": self.encode_s, "write": self.write_s}
        total = sum(spent.values())
        return {name: part / total if total else 0.0 for name, part in spent.items()}

    def add_video(self, outcome: Outcome, duration_s: float, rows: int) -> None:
        """Counts one video that this run worked on."""
        self.statuses[outcome.status] += 1
        if outcome.reason:
            self.reasons[outcome.reason] += 1
        if outcome.status != "quarantined" and math.isfinite(duration_s):
            self.media_s += duration_s
        self.segments += rows

    def to_json(self) -> dict[str, object]:
        """The summary as JSON values."""
        return {
            "wanted": self.wanted,
            "skipped": self.skipped,
            "executor": self.executor,
            "workers": self.workers,
            "statuses": dict(sorted(self.statuses.items())),
            "reasons": dict(sorted(self.reasons.items())),
            "store_statuses": dict(sorted(self.store_statuses.items())),
            "store_reasons": dict(sorted(self.store_reasons.items())),
            "media_s": round(self.media_s, 3),
            "segments": self.segments,
            "wall_s": round(self.wall_s, 3),
            "startup_s": round(self.startup_s, 3),
            "times_real_time": round(self.times_real_time, 2),
            "segments_per_s": round(self.segments_per_s, 2),
            "shares": {name: round(share, 4) for name, share in self.shares().items()},
            "commits": self.commits,
            "snapshot": self.snapshot,
            "stopped": self.stopped,
        }
