"""Counts and speed of a run."""

from __future__ import annotations

import json
import math

import pytest

from catalog.video import EXTRACTED, Outcome
from pipeline.run_summary import RunSummary


def test_summary_of_a_run_that_did_nothing_divides_by_nothing() -> None:
    summary = RunSummary(wanted=3, skipped=3)
    assert (summary.times_real_time, summary.segments_per_s, summary.quarantined) == (0.0, 0.0, 0)
    assert summary.shares() == {"decode": 0.0, "encode": 0.0, "write": 0.0}


def test_summary_counts_media_of_videos_that_came_out_alone() -> None:
    summary = RunSummary(wanted=4, skipped=0)
    summary.add_video(EXTRACTED, 10.0, 20)
    summary.add_video(Outcome(status="partial", reason="no_audio"), 5.0, 10)
    summary.add_video(Outcome(status="quarantined", reason="truncated_media"), 7.0, 0)
    summary.add_video(EXTRACTED, math.nan, 1)
    assert (summary.media_s, summary.segments) == (15.0, 31)
    assert dict(summary.statuses) == {"extracted": 2, "partial": 1, "quarantined": 1}
    assert dict(summary.reasons) == {"no_audio": 1, "truncated_media": 1}


def test_summary_speed_and_shares_are_of_the_times_spent() -> None:
    summary = RunSummary(
        wanted=1, skipped=0, media_s=60.0, segments=90, wall_s=30.0, decode_s=6.0, encode_s=3.0, write_s=1.0
    )
    assert (summary.times_real_time, summary.segments_per_s) == (2.0, 3.0)
    assert summary.shares() == pytest.approx({"decode": 0.6, "encode": 0.3, "write": 0.1})


def test_summary_as_json_is_plain_and_its_quarantined_are_the_stores() -> None:
    summary = RunSummary(wanted=2, skipped=1)
    summary.add_video(Outcome(status="quarantined", reason="not_media"), math.nan, 0)
    summary.store_statuses.update({"quarantined": 2})
    summary.store_reasons.update({"not_media": 1, "empty_file": 1})
    assert summary.quarantined == 2
    told = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert (told["statuses"], told["store_statuses"]) == ({"quarantined": 1}, {"quarantined": 2})
    assert list(told["store_reasons"]) == ["empty_file", "not_media"]
    assert (told["executor"], told["workers"], told["media_s"], told["stopped"]) == ("none", 0, 0.0, False)
