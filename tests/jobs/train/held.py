"""`avel` whose trainings wait at an epoch until they are stopped or killed there, however fast the machine is.

    python -m tests.jobs.train.held EPOCH FOLDER WORD...    `avel WORD...`

A training that has reached the epoch makes FOLDER/NAME, NAME being that of its run's folder. Processes that the verb
starts run this module again (multiprocessing's "spawn") and wait likewise.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# A hang is a failure; no machine is as slow as that.
HANG_S = 900


class Held:
    """The verb in a process of its own, each training of it held at `epoch`.

    Args:
        folder: where the trainings say that they have arrived; made anew.
    """

    def __init__(self, epoch: int, folder: Path, words: Sequence[str]) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(epoch), str(folder), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, *names: str) -> None:
        """Returns when the trainings of these runs have arrived, or the process has ended."""
        until_s = time.monotonic() + HANG_S
        while not all((self._folder / name).exists() for name in names) and self.process.poll() is None:
            assert time.monotonic() < until_s, "a hang"
            time.sleep(0.01)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Sends the signal; the exit status, and what was written to standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=HANG_S)
        return self.process.returncode, said


def hold(epoch: int, folder: Path) -> None:
    """From now on trainings of this process wait."""
    from jobs.train import parallel, run

    carry_out = run.carry_out  # type: ignore[attr-defined]

    def held(asked: Any, materials: Any, *, on_epoch: Any, stop: Any) -> Any:
        def wait(row: Any) -> None:
            on_epoch(row)
            if row["epoch"] == epoch:
                (folder / asked.out.name).touch()
                while not stop():
                    time.sleep(0.01)

        return carry_out(asked, materials, on_epoch=wait, stop=stop)

    for module in (run, parallel):  # one training, and several
        module.carry_out = held  # type: ignore[attr-defined]


if __name__ in ("__main__", "__mp_main__"):
    hold(int(sys.argv[1]), Path(sys.argv[2]))

if __name__ == "__main__":
    from jobs.cli.main import main

    sys.exit(main(sys.argv[3:]))
