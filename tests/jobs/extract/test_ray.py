"""Extraction on Ray: fused and split, with workers that are killed, the store of this process."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from catalog import dataset
from jobs.cli import main as cli
from pipeline import plan
from pipeline.executors.job import Job
from pipeline.executors.ray_cluster import RaySettings, connected
from pipeline.executors.ray_executor import RayExecutor
from pipeline.extract import ExtractOptions, extract
from pipeline.recipes import find_recipe
from pipeline.run_summary import RunSummary
from pipeline.unit import UnitResult
from tests import small_videos as small
from tests.pipeline.encoders.small_audioclip import SMALL, write_small

pytestmark = pytest.mark.ray

RECIPE = "descriptors-1s"
WORKERS = ("FusedWorker", "DecodeWorker", "EncodeWorker")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = small.make_folder(tmp_path_factory.mktemp("extract") / "videos", 10)
    return folder


@pytest.fixture(scope="module")
def local(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The store of this process."""
    store = tmp_path_factory.mktemp("local") / "store"
    extract(dataset.load("folder", str(videos)).videos, [find_recipe(RECIPE)], store, ExtractOptions(workers=1))
    held: dict[str, Any] = small.arrays(store)
    return held


@pytest.fixture(scope="module")
def started_ray() -> Iterator[None]:
    """One Ray for the module, large enough for each test: executors use the one that their process has started."""
    with warnings.catch_warnings():
        for category in (ResourceWarning, DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        cluster = connected(RaySettings(encode_workers=1), workers=5)
        cluster.__enter__()
    yield
    cluster.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def no_workers_left(started_ray: None) -> Iterator[None]:
    """The next test finds no worker of this one, which end a moment after their executor."""
    yield
    assert psutil.wait_procs(workers_of(""), timeout=900)[1] == []


@pytest.mark.parametrize(
    ("encode_workers", "workers"),
    # Of fused workers: `test_main_job.py`, and the last test here, in the ordinary run.
    [pytest.param(0, 2, id="fused", marks=pytest.mark.slow), pytest.param(1, 1, id="split")],
)
def test_ray_gives_the_arrays_of_this_process(
    videos: Path, local: dict[str, Any], tmp_path: Path, encode_workers: int, workers: int
) -> None:
    options = ExtractOptions(ray=RaySettings(encode_workers=encode_workers), workers=workers)
    extract(dataset.load("folder", str(videos)).videos, [find_recipe(RECIPE)], tmp_path / "ray", options)
    held = small.arrays(tmp_path / "ray")
    assert held.keys() == local.keys()
    for path, values in local.items():
        np.testing.assert_array_equal(held[path], values, err_msg=path)


@pytest.mark.parametrize("encode_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_ray_deaths_of_workers_without_a_task_are_charged_to_no_video(
    videos: Path, tmp_path: Path, encode_workers: int
) -> None:
    # Five: with one task at a time, four deaths are all it takes to make a video guilty.
    wanted = dataset.load("folder", str(videos)).videos[:1]
    job, unit = Job(recipes=(find_recipe(RECIPE),)), plan.plan_units(wanted, [RECIPE]).units[0]
    settings = RaySettings(encode_workers=encode_workers)
    with RayExecutor(job, workers=5, settings=settings) as executor:
        while len(executor._crew._idle) < 5:
            executor.wait(1)
        kind = "DecodeWorker" if encode_workers else "FusedWorker"
        assert kill_workers(kind) == 5
        executor.submit(unit)
        results: list[UnitResult] = []
        while not results:
            results = executor.wait(1)
    assert results[0].unit.crashed == frozenset()
    assert [video.reason for video in results[0].videos] == [""]


def kill_workers(kind: str) -> int:
    """Kills all of Ray's worker processes of that kind; how many."""
    victims = workers_of(kind)
    for victim in victims:
        victim.kill()
    assert psutil.wait_procs(victims, timeout=900)[1] == []
    return len(victims)


def workers_of(kind: str) -> list[psutil.Process]:
    """Ray's processes of that kind of worker, of all kinds for ""."""
    found = []
    for member in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            name = " ".join(member.cmdline())
            if any(f"ray::{one}" in name for one in WORKERS if kind in ("", one)):
                found.append(member)
    return found


@pytest.mark.parametrize("encode_workers", [0, 1])
def test_ray_workers_that_are_killed_are_replaced_and_leave_no_trace(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode_workers: int
) -> None:
    monkeypatch.setattr(plan, "UNIT_VIDEOS", 2)  # five units, so that some are in hand when the first is finished
    wanted, recipe = dataset.load("folder", str(videos)).videos, find_recipe(RECIPE)
    extract(wanted, [recipe], tmp_path / "local", ExtractOptions(workers=1))
    kinds = ["FusedWorker"] if not encode_workers else ["EncodeWorker", "DecodeWorker"]
    killed: list[str] = []

    def kill(_: RunSummary) -> None:
        """All workers of one kind, after each of the first units."""
        if len(killed) == len(kinds):
            return
        kill_workers(kinds[len(killed)])
        killed.append(kinds[len(killed)])

    options = ExtractOptions(ray=RaySettings(encode_workers=encode_workers), workers=2)
    summary = extract(wanted, [recipe], tmp_path / "ray", options, on_progress=kill)
    assert killed == kinds
    assert dict(summary.statuses) == {"extracted": 10}, summary.reasons
    assert small.differences(small.arrays(tmp_path / "ray"), small.arrays(tmp_path / "local")) == []


@pytest.mark.slow
def test_ray_encoders_with_weights_give_the_arrays_of_local_workers(videos: Path, tmp_path: Path) -> None:
    weights = write_small(tmp_path / "small.pt")
    words = ["extract", str(videos), "--limit", "2", "--recipe", "audioclip-1s", "--weights", str(weights)]
    words += [word for field, value in SMALL.items() for word in ("--set", f"{field}={value}")] + ["--as", "small"]
    for executor in ("local", "ray"):
        assert cli.main([*words, "--store", str(tmp_path / executor), "--executor", executor, "--workers", "2"]) == 0
    local = small.arrays(tmp_path / "local")
    assert len([path for path in local if path.startswith("features/small/")]) > 3
    assert small.differences(local, small.arrays(tmp_path / "ray")) == []
