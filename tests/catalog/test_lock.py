"""Lock files: one holder at a time, named; free again whatever way it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from catalog.lock import Locked, hold_lock

HOLDER = """
import sys
from pathlib import Path
from catalog.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_held_in_this_process_is_refused_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with hold_lock(path), pytest.raises(Locked, match=f"process {os.getpid()} on .* since 20"), hold_lock(path):
        pass
    with hold_lock(path):
        pass
    assert path.read_bytes() == b""


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Locked, match=f"process {process.pid} on"), hold_lock(path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with hold_lock(path):
        assert f'"pid": {os.getpid()},' in path.read_text()


@pytest.mark.parametrize("remove", [False, True])
def test_lock_of_many_threads_has_one_holder_at_a_time(tmp_path: Path, remove: bool) -> None:
    path = tmp_path / "x.lock"
    inside, most, done = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, done
        for _ in range(5):
            with hold_lock(path, wait_s=60, remove=remove):
                inside += 1
                most = max(most, inside)
                done += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == (1, 20)
    assert path.exists() is not remove


def test_lock_released_after_an_error_in_the_block(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with pytest.raises(RuntimeError), hold_lock(path, remove=True):
        raise RuntimeError
    assert not path.exists()
    with hold_lock(path):
        pass


def test_lock_shared_by_users_is_writable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with hold_lock(path, everybody=True):
        assert path.stat().st_mode & 0o777 == 0o666


def test_lock_in_a_folder_that_is_gone_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), hold_lock(tmp_path / "gone" / "x.lock"):
        pass
