"""Units that finish in any order, and a store that is as if they had finished in the plan's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.store.reader import FeatureStore, create_store
from catalog.store.writer import StoreWriter, open_writer
from catalog.video import Video
from pipeline import ledger as stage
from pipeline.ledger import EncoderFailsEverywhere, Ledger
from pipeline.plan import Plan, Unit
from pipeline.run_summary import RunSummary
from pipeline.unit import UnitResult, VideoWork
from tests.pipeline import made_units

RECIPE = made_units.recipe()
NEVER_S = 1e9


def plan_of(num_units: int, *, videos: int = 2) -> Plan:
    units = [
        Unit(
            index=index,
            number=index,
            recipes=("r",),
            videos=tuple(Video(id=f"u{index}v{i}", uri=f"/u{index}v{i}.mp4") for i in range(videos)),
        )
        for index in range(num_units)
    ]
    return Plan(units=tuple(units), done=0)


def finished(unit: Unit, *, refused: str = "") -> UnitResult:
    """Features that tell the unit; `refused` is what the encoder raised instead."""
    work = [
        VideoWork(
            decoded=made_units.decoded(),
            reason="",
            detail="",
            attempts=1,
            refused={"r": refused} if refused else {},
            features={} if refused else {"r": [made_units.features(float(unit.index))]},
            grids={"r": made_units.grid(2)},
        )
        for _ in unit.videos
    ]
    return UnitResult(unit=unit, videos=tuple(work), decode_s=1.0, encode_s=2.0)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return create_store(tmp_path / "store")


@pytest.fixture
def writer(store: FeatureStore) -> Iterator[StoreWriter]:
    with open_writer(store) as writer:
        writer.ensure_recipe(
            RECIPE, visual_shape=(made_units.VISUAL,), audio_shape=(made_units.AUDIO,), card={"licence": "none"}
        )
        yield writer


def ledger_of(
    plan: Plan,
    writer: StoreWriter,
    *,
    workers: int = 1,
    commit_every_s: float = NEVER_S,
    max_held_bytes: int = stage.MAX_HELD_BYTES,
) -> Ledger:
    return Ledger(
        plan,
        {"r": RECIPE},
        writer,
        RunSummary(wanted=plan.num_videos, skipped=0),
        workers=workers,
        commit_every_s=commit_every_s,
        max_held_bytes=max_held_bytes,
    )


def stored(store: FeatureStore) -> tuple[Sequence[str], list[float]]:
    """Ids in the store's order, and the unit that each row's value names."""
    return store.video_ids(), [float(value) for value in store.read("r", "visual").values[:, 0]]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_ledger_any_order_of_finishing_gives_the_plans_order(
    store: FeatureStore, writer: StoreWriter, order: tuple[int, ...]
) -> None:
    plan = plan_of(3)
    ledger = ledger_of(plan, writer)
    for count, index in enumerate(order, start=1):
        ledger.take(finished(plan.units[index]))
        assert ledger.finished == (count == 3)
    ledger.commit()
    assert stored(store) == (
        [video.id for unit in plan.units for video in unit.videos],
        [0.0] * 4 + [1.0] * 4 + [2.0] * 4,
    )


def test_ledger_unit_that_waits_for_an_earlier_one_is_not_committed(store: FeatureStore, writer: StoreWriter) -> None:
    plan = plan_of(3)
    ledger = ledger_of(plan, writer)
    for index in (0, 2):
        ledger.take(finished(plan.units[index]))
    ledger.commit()
    assert store.video_ids() == ["u0v0", "u0v1"]


def test_ledger_commits_when_the_time_has_come_and_not_before(store: FeatureStore, writer: StoreWriter) -> None:
    plan = plan_of(2)
    rest = Plan(units=(replace(plan.units[1], index=0),), done=0)
    patient, hasty = ledger_of(plan, writer), ledger_of(rest, writer, commit_every_s=0.0)
    patient.take(finished(plan.units[0]))
    patient.commit_if_due()
    assert len(store) == 0
    patient.commit()
    hasty.take(finished(rest.units[0]))
    hasty.commit_if_due()
    assert len(store) == 4


def test_ledger_commit_with_nothing_new_makes_no_snapshot(store: FeatureStore, writer: StoreWriter) -> None:
    plan = plan_of(1)
    summary = RunSummary(wanted=2, skipped=0)
    ledger = Ledger(plan, {"r": RECIPE}, writer, summary, workers=1, commit_every_s=NEVER_S)
    ledger.take(finished(plan.units[0]))
    ledger.commit()
    before = len(store.log())
    ledger.commit()
    assert (len(store.log()), summary.commits) == (before, 1)


def test_ledger_counts_what_it_appends(writer: StoreWriter) -> None:
    plan = plan_of(2)
    summary = RunSummary(wanted=4, skipped=0)
    ledger = Ledger(plan, {"r": RECIPE}, writer, summary, workers=1, commit_every_s=NEVER_S)
    for unit in plan.units:
        ledger.take(finished(unit))
    assert dict(summary.statuses) == {"extracted": 4}
    assert (summary.segments, summary.media_s) == (8, 8.0)
    assert (summary.decode_s, summary.encode_s) == (2.0, 4.0)


def test_ledger_submitting_runs_ahead_by_units_and_by_bytes_only_so_far(writer: StoreWriter) -> None:
    plan = plan_of(20)
    ledger = ledger_of(plan, writer, workers=2, max_held_bytes=finished(plan.units[1]).nbytes)
    ahead = 2 * stage.UNITS_AHEAD_A_WORKER
    assert [ledger.may_submit(index) for index in range(20)] == [index < ahead for index in range(20)]
    ledger.take(finished(plan.units[1]))
    # What is due next may always go, or nothing would ever be appended again.
    assert [ledger.may_submit(index) for index in range(4)] == [True, False, False, False]
    ledger.take(finished(plan.units[0]))
    assert ledger.may_submit(3)
    assert np.flatnonzero([ledger.may_submit(index) for index in range(20)])[-1] == ahead + 1


def test_ledger_first_unit_refused_throughout_is_the_encoders_fault(store: FeatureStore, writer: StoreWriter) -> None:
    plan = plan_of(2)
    ledger = ledger_of(plan, writer)
    with pytest.raises(EncoderFailsEverywhere, match=r"all 2 videos.*ValueError: no such layer"):
        ledger.take(finished(plan.units[0], refused="ValueError: no such layer"))
    ledger.commit()
    assert len(store) == 0


def test_ledger_later_unit_or_single_video_refused_is_theirs_alone(store: FeatureStore, writer: StoreWriter) -> None:
    plan = plan_of(2)
    ledger = ledger_of(plan, writer)
    ledger.take(finished(plan.units[0]))
    ledger.take(finished(plan.units[1], refused="ValueError: odd"))
    ledger.commit()
    assert list(store.videos().status) == ["extracted"] * 2 + ["quarantined"] * 2
    single = Plan(units=(made_units.unit(1),), done=0)
    alone = ledger_of(single, writer)
    alone.take(finished(single.units[0], refused="ValueError: odd"))
    alone.commit()
    assert store.videos().reason[-1] == "encoder_failed"
