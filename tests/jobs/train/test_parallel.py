"""Runs side by side, in real processes: what comes of each, whichever ends first, fails, or is killed."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import safetensors

from catalog.datasets import ave
from heads.training.checkpoint import FILE
from heads.training.order import Order
from heads.training.settings import Settings
from jobs.train.parallel import carry_out_all
from tests.heads import planted
from tests.jobs.train.held import HANG_S


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
        "long": order("long", epochs=10**6),
        "wrong": replace(order("wrong", epochs=1), root="/nowhere"),
        "unknown": replace(order("unknown", epochs=1), recipe="nosuch"),
        "short": order("short", epochs=1),
    }
    stop = threading.Event()

    def send_and_stop() -> None:
        # A terminal signals the workers too, and they are deaf to it once they have begun: the parent decides.
        workers = _workers()
        _send(signal.SIGTERM)
        before = _epochs_kept(orders["long"])
        _wait(lambda: _epochs_kept(orders["long"]) > before)
        assert len(workers) == 2
        assert all(worker.is_running() for worker in workers)
        stop.set()

    # "long" ends with `stop` alone, so the others were another worker's: both have begun.
    with _once((orders["short"].out / "run.json").exists, send_and_stop):
        outcomes = carry_out_all(orders, stop, jobs=2, what="runs", quiet=True)
    assert list(outcomes) == ["long", "wrong", "unknown", "short"]
    assert [outcome.stopped for outcome in outcomes.values()] == [True, False, False, False]
    assert (outcomes["long"].error, outcomes["short"].error) == (None, None)
    assert "/nowhere" in str(outcomes["wrong"].error)
    assert "recipe nosuch: the store" in str(outcomes["unknown"].error)
    assert "it has descriptors-1s" in str(outcomes["unknown"].error)
    assert [(one.out / "run.json").exists() for one in orders.values()] == [False, False, False, True]


@pytest.mark.slow
def test_stopped_runs_say_so_and_those_not_begun_never_begin(order: Callable[..., Order]) -> None:
    stop = threading.Event()
    orders = {name: order(f"stopped-{name}", epochs=10**6) for name in ("first", "second")}
    with _once(_partial(orders["first"]).exists, stop.set):
        outcomes = carry_out_all(orders, stop, jobs=1, what="runs", quiet=True)
    assert [outcome.stopped for outcome in outcomes.values()] == [True, True]
    assert not _partial(orders["second"]).exists()


def test_worker_that_is_killed_is_told_as_such(order: Callable[..., Order]) -> None:
    orders = {"one": order("killed", epochs=10**6)}
    with _once(_partial(orders["one"]).exists, lambda: _send(signal.SIGKILL)):
        outcomes = carry_out_all(orders, threading.Event(), jobs=None, what="runs", quiet=True)
    assert "a worker process died" in str(outcomes["one"].error)


def test_worker_that_dies_of_what_stops_all_is_stopped(order: Callable[..., Order]) -> None:
    stop = threading.Event()

    def interrupt() -> None:
        stop.set()
        _send(signal.SIGTERM)

    # While it starts: it is not yet deaf (and if it were by now, it would be stopped by its parent).
    with _once(lambda: bool(_workers()), interrupt):
        outcomes = carry_out_all({"one": order("starting", epochs=10**6)}, stop, jobs=1, what="runs", quiet=True)
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


def _epochs_kept(order: Order) -> int:
    path = _partial(order) / FILE
    if not path.exists():
        return 0
    with safetensors.safe_open(path, framework="pt") as file:
        return len(json.loads(file.metadata()["told"])["history"])


@contextlib.contextmanager
def _once(ready: Callable[[], bool], then: Callable[[], None]) -> Iterator[None]:
    """Does `then` in a thread when it is `ready`, while the block runs; what goes wrong there goes wrong here."""

    def wait_and_do() -> None:
        _wait(ready)
        then()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(wait_and_do)
        yield
        done.result()


def _wait(ready: Callable[[], bool]) -> None:
    until_s = time.monotonic() + HANG_S
    while not ready():
        assert time.monotonic() < until_s, "a hang"
        time.sleep(0.01)
