"""Runs side by side, in real processes: what comes of each, whichever ends first, fails, or is killed."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from catalog.datasets import ave
from heads.training.order import Order
from heads.training.settings import Settings
from jobs.train.parallel import carry_out_all
from tests.heads import planted

LIMIT_S = 60


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Order]:
    """An order on planted features of few items: its folder's name and its epochs."""
    folder = tmp_path_factory.mktemp("side-by-side")
    data = planted.dataset(items_a_class=4)
    ave.write(data, folder / "ave")
    planted.store(folder / "store", data)

    def made(name: str, *, epochs: int) -> Order:
        return Order(
            store=str(folder / "store"),
            snapshot=None,
            dataset="ave",
            root=str(folder / "ave"),
            media=None,
            options={},
            recipe="descriptors-1s",
            head="linear",
            modality="both",
            changes={},
            vocabulary=None,
            settings=Settings(epochs=epochs, patience=0),
            threads=1,
            out=folder / "runs" / name,
            overwrite=False,
            restart=False,
        )

    return made


def test_outcomes_are_in_the_order_given_and_a_failure_is_one_of_them(order: Callable[..., Order]) -> None:
    orders = {
        "long": order("long", epochs=150),
        "wrong": replace(order("wrong", epochs=1), root="/nowhere"),
        "unknown": replace(order("unknown", epochs=1), recipe="nosuch"),
        "short": order("short", epochs=1),
    }
    # A terminal's signals reach the workers too, and they are deaf to them once they have begun: the parent decides.
    sender = threading.Thread(
        target=_once, args=((orders["short"].out / "run.json").exists, lambda: _send(signal.SIGTERM))
    )
    sender.start()
    outcomes = carry_out_all(orders, threading.Event(), jobs=2, what="runs", quiet=True)
    sender.join()
    assert list(outcomes) == ["long", "wrong", "unknown", "short"]
    assert [outcome.stopped for outcome in outcomes.values()] == [False] * 4
    assert (outcomes["long"].error, outcomes["short"].error) == (None, None)
    assert "/nowhere" in str(outcomes["wrong"].error)
    assert "recipe nosuch: the store" in str(outcomes["unknown"].error)
    assert "it has descriptors-1s" in str(outcomes["unknown"].error)
    assert [(one.out / "run.json").exists() for one in orders.values()] == [True, False, False, True]


def test_stopped_runs_say_so_and_those_not_begun_never_begin(order: Callable[..., Order]) -> None:
    stop = threading.Event()
    orders = {name: order(f"stopped-{name}", epochs=10**6) for name in ("first", "second")}
    began = threading.Thread(target=_once, args=(lambda: _partial(orders["first"]).exists(), stop.set))
    began.start()
    outcomes = carry_out_all(orders, stop, jobs=1, what="runs", quiet=True)
    began.join()
    assert [outcome.stopped for outcome in outcomes.values()] == [True, True]
    assert not _partial(orders["second"]).exists()


def test_worker_that_is_killed_is_told_as_such(order: Callable[..., Order]) -> None:
    orders = {"one": order("killed", epochs=10**6)}

    killer = threading.Thread(
        target=_once, args=(lambda: _partial(orders["one"]).exists(), lambda: _send(signal.SIGKILL))
    )
    killer.start()
    outcomes = carry_out_all(orders, threading.Event(), jobs=None, what="runs", quiet=True)
    killer.join()
    assert "a worker process died" in str(outcomes["one"].error)


def test_worker_that_dies_of_what_stops_all_is_stopped(order: Callable[..., Order]) -> None:
    stop = threading.Event()

    def interrupt() -> None:
        stop.set()
        _send(signal.SIGTERM)

    # While it starts: it is not yet deaf.
    sender = threading.Thread(target=_once, args=(lambda: bool(_workers()), interrupt))
    sender.start()
    outcomes = carry_out_all({"one": order("starting", epochs=1)}, stop, jobs=1, what="runs", quiet=True)
    sender.join()
    assert outcomes["one"].stopped
    assert outcomes["one"].error is None


def _workers() -> list[psutil.Process]:
    """The workers alone; a process that watches shared memory for leaks is a child too."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def _send(number: signal.Signals) -> None:
    for worker in _workers():
        worker.send_signal(number)


def _partial(order: Order) -> Path:
    return order.out.with_name(f"{order.out.name}.partial")


def _once(ready: Callable[[], bool], then: Callable[[], None]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not ready() and time.monotonic() < until_s:
        time.sleep(0.01)
    then()
