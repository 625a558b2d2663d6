"""The first signal asks for a stop, the second ends the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.cli.signals import stoppable

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_sets_the_event_and_handlers_come_back(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with stoppable("avel try", "after this video") as (stop, received):
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        assert received == [number]
    assert signal.getsignal(number) is before
    assert "avel try: stopping after this video; a second signal stops at once" in capfd.readouterr().err


def test_second_signal_ends_the_process_with_its_status() -> None:
    probe = """if True:
        import signal
        from jobs.cli.signals import stoppable
        with stoppable("avel try", "soon"):
            signal.raise_signal(signal.SIGTERM)
            print("still here", flush=True)
            signal.raise_signal(signal.SIGTERM)
            print("never", flush=True)
    """
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout == "still here\n"


def test_outside_the_main_thread_handlers_stay_as_they_are() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stoppable("avel try", "soon") as (stop, _):
            inside.append((signal.getsignal(signal.SIGTERM), stop.is_set()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, False)]
