"""Joining a cluster: nobody there, a token, no room for workers."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from catalog.errors import AvelError
from pipeline.executors.ray_cluster import SAY_AGAIN_S, START_S, RayCluster, StartWatch, reach
from tests import small_videos as small

PROJECT = Path(__file__).resolve().parents[3]
HANG_S = 900


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_address_where_nobody_listens_is_told_at_once(form: str) -> None:
    address = form.format(free_port())
    with pytest.raises(AvelError, match=rf"no Ray cluster answers at {address}: .*refused"):
        reach(address)


@pytest.mark.parametrize("address", ["auto", "local", "http://127.0.0.1:8265/x"])
def test_addresses_of_other_forms_are_left_to_ray(address: str) -> None:
    reach(address)


def test_workers_that_cannot_start_are_told_after_a_while_and_then_every_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    has = {"CPU": 1.0, "memory": 4 * 2**30}
    place = SimpleNamespace(
        exceptions=ray.exceptions, cluster_resources=lambda: has, available_resources=lambda: {"memory": 2**30}
    )
    now_s = 100.0
    watch = StartWatch(RayCluster(place), 3, clock=lambda: now_s)
    times = []
    for second in range(200):
        now_s = 100.0 + second
        watch.look(0 if second == 150 else 2)
        if caplog.messages:
            times.append(second)
            assert caplog.messages[0].startswith(f"2 of 3 Ray workers have not started for {second % 151} s: ")
            assert "the cluster has 1 CPUs (0 free), 4.0 GiB (1.0 free)" in caplog.messages[0]
            caplog.clear()
    # Those that came up at 150 s began the wait anew.
    assert times == [START_S, START_S + SAY_AGAIN_S, START_S + 2 * SAY_AGAIN_S, 151 + START_S]


@contextlib.contextmanager
def head(home: Path, cpus: int) -> Iterator[str]:
    """A cluster of `ray start`, of its own home (where Ray keeps its token): its address."""
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--num-cpus={cpus}"]
    command += [f"--port={free_port()}", "--include-dashboard=false", f"--ray-client-server-port={free_port()}"]
    log = home / "head.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment(home), stdout=file, stderr=subprocess.STDOUT)
    try:
        until_s, said = time.monotonic() + HANG_S, ""
        while "Ray runtime started" not in said and time.monotonic() < until_s:
            time.sleep(0.2)
            said = log.read_text()
        address = re.search(r"[\d.]+:\d{4,5}", said)
        assert address is not None, said
        yield address[0]
    finally:
        process.terminate()
        process.wait(timeout=HANG_S)


def environment(home: Path) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"HOME": str(home), "PYTHONPATH": str(PROJECT)}


@pytest.mark.slow
@pytest.mark.ray
def test_ray_starts_where_the_folder_of_temporary_files_has_a_long_path(tmp_path: Path) -> None:
    small.make_folder(tmp_path / "media", 1)
    place = tmp_path / ("a-long-name-" * 6)
    place.mkdir()
    command = [sys.executable, "-m", "jobs.cli.main", "extract", str(tmp_path / "media"), "--executor", "ray"]
    command += ["--recipe", "descriptors-1s", "--workers", "1", "--store", str(tmp_path / "store")]
    env = environment(tmp_path / "home") | {"TMPDIR": str(place)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=PROJECT, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_cluster_with_a_token_is_joined_by_the_token_at_hand_and_tells_whoever_has_none(tmp_path: Path) -> None:
    small.make_folder(tmp_path / "media", 2)

    def extract(home: str, store: str, address: str = "", *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobs.cli.main", "extract", str(tmp_path / "media"), "--executor", "ray"]
        command += ["--recipe", "descriptors-1s", "--workers", "1", "--store", str(tmp_path / store), *more]
        command += ["--address", address] if address else []
        how: dict[str, Any] = {"env": environment(tmp_path / home), "cwd": PROJECT, "timeout": HANG_S}
        return subprocess.run(command, capture_output=True, text=True, check=False, **how)

    assert extract("mine", "local").returncode == 0  # leaves a token
    with head(tmp_path / "mine", 1) as address:
        done = extract("mine", "joined", address)
        assert done.returncode == 0, done.stderr
        done = extract("other", "refused", address)
        assert done.returncode == 1
        assert f"the Ray cluster at {address} does not let this process in: it wants a token" in done.stderr
    assert small.differences(small.arrays(tmp_path / "joined"), small.arrays(tmp_path / "local")) == []
