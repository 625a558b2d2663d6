"""Killed at seeded random moments and run again, a store equals an undisturbed run's, bit for bit.

A few kills in the ordinary run; `make kill-test KILLS=20` for more.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import small_videos as small

pytestmark = pytest.mark.ray

NUM_VIDEOS = 21
KILLS_A_STORE = 5
# Far above what a run takes on any machine, and the end of a killed one's orphans (Ray notices within seconds, decoding
# children at once); a hang is a failure.
HANG_S = 900
# Two idle agents of Ray's own hold nothing of ours and end 60 s after their node, a limit that Ray does not let us set.
RAYS_AGENTS = ("ray::RuntimeEnvAgent", "runtime_env/agent/main.py", "ray::DashboardAgent", "dashboard/agent.py")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = small.make_folder(tmp_path_factory.mktemp("kills") / "media", NUM_VIDEOS)
    # One that fails, and one without sound: their rows must survive kills too.
    (folder / "v005.mp4").write_bytes(b"not media at all" * 100)
    small.make_video(folder / "v020.mp4", seed=20, sound=False)
    return folder


@pytest.fixture(scope="module")
def undisturbed(media: Path) -> dict[str, object]:
    store = media.parent / "undisturbed"
    process = _start(media, store, "local")
    output, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, output
    held: dict[str, object] = small.arrays(store)
    return held


@pytest.mark.timeout(0)
# On Ray in the ordinary run: `tests/jobs/extract/test_ray.py`, whose workers are killed.
@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_extract_killed_at_random_moments_and_run_again_equals_an_undisturbed_run(
    media: Path, undisturbed: dict[str, object], tmp_path: Path, executor: str, pytestconfig: pytest.Config
) -> None:
    asked = pytestconfig.getoption("--kills")
    kills_left = {"local": 2, "ray": 1}[executor] if asked is None else int(asked)
    rng = random.Random(f"{executor} 1")
    done: list[str] = []
    # How long a run takes is learnt from the runs themselves, so that kills fall on all of its parts.
    typical_s = {"local": 5.0, "ray": 14.0}[executor]
    number = 0
    while kills_left:
        store = tmp_path / f"store{number}"
        number += 1
        here = min(kills_left, KILLS_A_STORE)
        finished = False
        while not finished:
            process = _start(media, store, executor)
            began_s = time.monotonic()
            while here and process.poll() is None:
                try:
                    process.wait(timeout=rng.uniform(0.1, typical_s) / 2)
                except subprocess.TimeoutExpired:
                    if (what := _kill(process, executor, rng)) is not None:
                        done.append(f"{what} after {time.monotonic() - began_s:.1f} s")
                        here -= 1
                        kills_left -= 1
            output, _ = process.communicate(timeout=HANG_S)
            finished = process.returncode == 0
            # -SIGTERM and -SIGINT: it had not come as far as having handlers.
            stopped = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130, 143)
            assert finished or process.returncode in stopped, (done, output)
            if finished:
                typical_s = 0.5 * typical_s + 0.5 * min(time.monotonic() - began_s, HANG_S)
                # A run that ended sooner than its kills: the next store gets them.
                here = 0
        assert small.differences(small.arrays(store), undisturbed) == [], done
    sys.stdout.write(f"\n{executor}: {len(done)} kills, {number} stores: {'; '.join(done)}\n")


def _start(media: Path, store: Path, executor: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs.cli.main", "extract", str(media), "--recipe", "descriptors-1s"]
    command += ["--store", str(store), "--executor", executor, "--workers", "2"]
    # Commits often, so that kills fall between them; waits for a killed driver's lock, which the kernel drops.
    command += ["--commit-every", "0.5", "--wait", str(HANG_S), "--max-quarantined", "1"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _kill(process: subprocess.Popen[str], executor: str, rng: random.Random) -> str | None:
    """Kills something of a run; says what, or None where there was nothing of the kind."""
    kinds = ["decoder", "decoder", "driver", "SIGTERM", "SIGINT"] + (["worker", "worker"] if executor == "ray" else [])
    kind = rng.choice(kinds)
    try:
        family = psutil.Process(process.pid).children(recursive=True)
        if kind in ("SIGTERM", "SIGINT"):
            process.send_signal(signal.Signals[kind])
            process.wait(timeout=HANG_S)
        elif kind == "driver":
            process.kill()
            process.wait()
        else:
            marks = {"decoder": "pipeline.sandbox.child", "worker": "ray::FusedWorker"}
            victims = [member for member in family if marks[kind] in _command(member)]
            if not victims:
                return None
            rng.choice(sorted(victims, key=lambda victim: victim.pid)).kill()
            return kind
    except psutil.NoSuchProcess:
        return None
    ours = [member for member in family if not any(agent in _command(member) for agent in RAYS_AGENTS)]
    _, alive = psutil.wait_procs(ours, timeout=HANG_S)
    assert not alive, f"left behind after {kind}: {[_command(member) for member in alive]}"
    return kind


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
