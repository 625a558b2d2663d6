"""Lanes of two threads: bounded queues between them, errors raised to the driver, and no thread left at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import pytest

from catalog.recipe import Recipe
from catalog.video import Video
from pipeline.clips import Clips
from pipeline.executors.local import Channel, LocalExecutor
from pipeline.sandbox.parent import Decoded
from pipeline.unit import ClipEncoder, Restarted, Stopped, UnitResult, Window
from tests.pipeline import made_units
from tests.pipeline.made_units import ScriptedJob, ShadeEncoder, clips, decoded

# A hang is a failure; no step here waits for anything that is slow.
HANG_S = 900.0
JOB = ScriptedJob(
    recipes=(made_units.recipe(),),
    script={f"v{i:02d}": [[("r", clips(f"v{i:02d}", shade=i + 1)), decoded()]] for i in range(4)},
)


def window(shade: int = 1) -> Window:
    return Window(position=0, recipe="r", clips=clips("v00", shade=shade))


def wait_for(executor: LocalExecutor, count: int) -> list[UnitResult]:
    results: list[UnitResult] = []
    while len(results) < count:
        found = executor.wait(HANG_S)
        assert found, "no unit finished"
        results += found
    return results


@pytest.mark.parametrize("workers", [1, 3])
def test_local_units_come_back_whole_whatever_the_number_of_lanes(workers: int) -> None:
    units = [made_units.unit(4, index=index) for index in range(6)]
    with LocalExecutor(JOB, workers=workers) as executor:
        for unit in units:
            executor.submit(unit)
        results = wait_for(executor, 6)
        assert executor.wait(0.0) == []
    assert sorted(result.unit.index for result in results) == list(range(6))
    for result in results:
        assert result.unit == units[result.unit.index]
        shades = [part.visual.values[0, 0] for video in result.videos for part in video.features["r"] if part.visual]
        assert shades == [1, 2, 3, 4]


@dataclass(frozen=True, kw_only=True)
class BrokenJob(ScriptedJob):
    """Its encoder has no memory left."""

    def load_encoders(self) -> dict[str, ClipEncoder]:
        def refuse(given: Sequence[Clips]) -> None:
            raise MemoryError("no memory left")

        return {"r": ShadeEncoder(refuse=refuse)}


def test_local_error_of_a_lane_is_raised_to_the_driver_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    broken = BrokenJob(recipes=JOB.recipes, script=JOB.script)
    with LocalExecutor(broken, workers=2) as executor:
        executor.submit(made_units.unit(2))
        with pytest.raises(MemoryError, match="no memory left"):
            wait_for(executor, 1)
    assert_no_thread_but(before)


class HeldDecoder:
    """Decodes nothing until it is let go."""

    child_pid = None

    def __init__(self, reached: threading.Event, go: threading.Event) -> None:
        self._reached, self._go = reached, go

    def decode(self, video: Video, path: str, recipes: Sequence[Recipe]) -> Iterator[tuple[str, Clips] | Decoded]:
        self._reached.set()
        assert self._go.wait(HANG_S)
        yield "r", clips(video.id)
        yield decoded()


@dataclass(frozen=True, kw_only=True)
class HeldJob(ScriptedJob):
    """Its decoders are held until the test lets them go."""

    reached: threading.Event
    go: threading.Event

    def new_sandbox(self) -> AbstractContextManager[HeldDecoder]:  # type: ignore[override]
        return nullcontext(HeldDecoder(self.reached, self.go))


def test_local_left_in_the_middle_of_a_unit_gives_it_up_and_ends_its_threads() -> None:
    before = set(threading.enumerate())
    job = HeldJob(recipes=JOB.recipes, script={}, reached=threading.Event(), go=threading.Event())
    with LocalExecutor(job, workers=1) as executor:
        executor.submit(made_units.unit(2))
        assert job.reached.wait(HANG_S)
        assert executor.wait(0.0) == []
        # As a child that is killed: its lane goes on, and finds that it is to stop.
        threading.Timer(0.01, job.go.set).start()
    assert_no_thread_but(before)


def assert_no_thread_but(before: set[threading.Thread]) -> None:
    for thread in set(threading.enumerate()) - before:
        thread.join(HANG_S)
    assert set(threading.enumerate()) <= before


def put_in_thread(channel: Channel, item: Window) -> tuple[threading.Thread, list[str]]:
    """A thread that puts `item`; the list says how it ended."""
    ended: list[str] = []

    def put() -> None:
        try:
            channel.put(item)
            ended.append("put")
        except Stopped:
            ended.append("stopped")

    thread = threading.Thread(target=put)
    thread.start()
    return thread, ended


@pytest.mark.parametrize("bound", ["bytes", "items"])
def test_channel_beyond_its_bound_waits_until_an_item_is_taken(bound: str) -> None:
    one = window().nbytes
    channel = Channel(max_bytes=2 * one) if bound == "bytes" else Channel(max_items=2)
    channel.put(window(1))
    channel.put(window(2))
    assert not channel.has_room(one)
    thread, ended = put_in_thread(channel, window(3))
    assert ended == []
    taken = [channel.get()]
    thread.join(HANG_S)
    assert ended == ["put"]
    taken += [channel.get(), channel.get()]
    assert [item.clips.frames_FHWC[0, 0, 0, 0] for item in taken if isinstance(item, Window)] == [1, 2, 3]


def test_channel_takes_one_window_of_any_size_and_events_without_clips() -> None:
    channel = Channel(max_bytes=1)
    channel.put(window())
    assert not channel.has_room(1)
    channel.get()
    channel.put(Restarted(position=0))
    channel.put(window())


def test_channel_that_is_closed_stops_both_ends() -> None:
    channel = Channel(max_items=1)
    channel.put(window())
    thread, ended = put_in_thread(channel, window())
    channel.close()
    thread.join(HANG_S)
    assert ended == ["stopped"]
    for end in (channel.get, lambda: channel.put(window())):
        with pytest.raises(Stopped):
            end()


def test_local_job_without_videos_to_decode_ends_at_once() -> None:
    with LocalExecutor(replace(JOB, script={}), workers=2) as executor:
        assert executor.wait(0.0) == []
