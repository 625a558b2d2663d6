"""The main job on every real and odd file, as a person runs it: equal stores, the manifest's verdicts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from catalog.store.reader import open_store
from jobs.cli.main import main
from tests import small_videos as small

# All of the file, so that its tests stay together and share its stores.
pytestmark = pytest.mark.ray

RECIPE = "descriptors-1s"
STATUS = {"extract": {"extracted"}, "extract_partial": {"partial"}, "quarantine": {"quarantined"}}
PROJECT = Path(__file__).resolve().parent.parent


def avel(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=1200, check=False)


def lay_out(shared: Path, folder: Path) -> Path:
    """Real media in `real`, and the odd ones with their odd paths unpacked in `malformed`."""
    (folder / "real").symlink_to(shared / "data" / "media", target_is_directory=True)
    odd = folder / "malformed"
    odd.mkdir()
    for path in (shared / "data" / "malformed").iterdir():
        if path.suffix not in (".json", ".tar"):
            (odd / path.name).write_bytes(path.read_bytes())
    with tarfile.open(shared / "data" / "malformed" / "odd_paths.tar") as archive:
        archive.extractall(odd, filter="fully_trusted")  # links to nothing and loops are what it is for
    return folder


def extracted(media: Path, name: str, executor: str, store: Path) -> Path:
    """The store of one of the two folders, made by an executor."""
    words = ["extract", str(media / name), "--recipe", RECIPE, "--store", str(store), "--executor", executor]
    done = avel(*words, "--json")
    assert done.returncode == {"real": 0, "malformed": 3}[name], done.stderr
    json.loads(done.stdout)
    return store


@pytest.fixture(scope="module")
def media(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(shared, tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def stores(media: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of both folders, made by local workers."""
    folder = tmp_path_factory.mktemp("stores")
    return {name: extracted(media, name, "local", folder / name) for name in ("real", "malformed")}


def test_the_91_odd_media_get_the_manifests_verdicts(shared: Path, stores: dict[str, Path]) -> None:
    manifest = json.loads((shared / "data" / "malformed" / "manifest.json").read_text(encoding="utf-8"))
    store = open_store(stores["malformed"])
    videos, outcomes = store.videos(), store.outcomes(RECIPE)
    position = {video_id: i for i, video_id in enumerate(videos.ids)}
    wrong = []
    assert len(manifest["entries"]) == len(videos) == 91
    for entry in manifest["entries"]:
        i = position[entry["file"].split("!")[-1].replace("\\n", "\n").replace("\\t", "\t")]
        allowed = STATUS.get(entry["verdict"], {"extracted", "quarantined"})
        right = videos.status[i] in allowed
        if entry["verdict"] in ("quarantine", "extract_partial"):
            right &= videos.reason[i] == entry["reason"]
        if videos.status[i] == "extracted":
            right &= int(outcomes.row_count[i]) == entry["segments"]
        if not right:
            got = (videos.status[i], videos.reason[i], int(outcomes.row_count[i]), videos.detail[i])
            wrong.append((entry["file"], entry["verdict"], entry["reason"], entry.get("segments"), got))
    assert wrong == []


def test_no_real_medium_is_quarantined_and_the_stores_verify(media: Path, stores: dict[str, Path]) -> None:
    store = open_store(stores["real"])
    videos, outcomes = store.videos(), store.outcomes(RECIPE)
    of_videos = {name: status for name, status in zip(videos.ids, videos.status, strict=True) if "video/" in name}
    assert len(of_videos) == 29
    assert set(of_videos.values()) == {"extracted", "partial"}
    wrong = []
    for i, name in enumerate(videos.ids):
        if name in of_videos:
            duration_s, rows = videos.duration_s[i], int(outcomes.row_count[i])
            # A last segment of less than a tenth of a second is none.
            if rows != max(1, math.ceil(round(duration_s - 0.1, 6))):
                wrong.append(f"{name}: {rows} segments of {duration_s} s")
            if (videos.status[i] == "partial") != ("audio" not in videos.media[i]):
                wrong.append(f"{name}: {videos.status[i]}, {videos.media[i]}")
    assert wrong == []
    for name in ("real", "malformed"):
        done = avel("store", "verify", str(stores[name]), "--media", str(media / name))
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_second_run_does_nothing_and_says_so(media: Path, stores: dict[str, Path]) -> None:
    store = stores["real"]
    before = open_store(store).snapshot_id
    done = avel("extract", str(media / "real"), "--recipe", RECIPE, "--store", str(store))
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout + done.stderr
    assert open_store(store).snapshot_id == before


def test_another_hop_is_refused_and_the_field_named(media: Path, stores: dict[str, Path]) -> None:
    store = str(stores["real"])
    done = avel("extract", str(media / "real"), "--recipe", RECIPE, "--store", store, "--hop", "0.5")
    assert done.returncode == 2
    assert "grid.hop_s" in done.stderr


@pytest.mark.parametrize("form", ["ave-h5", "unav-npy", "zarr"])
def test_features_exported_and_imported_back_are_equal(stores: dict[str, Path], tmp_path: Path, form: str) -> None:
    for name in ("real", "malformed"):
        store, out, back = stores[name], tmp_path / f"out-{name}", tmp_path / f"back-{name}"
        assert main(["store", "export", str(store), str(out), "--format", form]) == 0
        assert main(["store", "import", str(out), str(back), "--format", form]) == 0
        here, there = small.arrays(store), small.arrays(back)
        for path in (path for path in here if path.startswith("features/")):
            np.testing.assert_array_equal(here[path], there[path], err_msg=path)


@pytest.mark.parametrize("name", [pytest.param("real", marks=pytest.mark.slow), "malformed"])
def test_stores_of_both_executors_are_equal_array_for_array(
    media: Path, stores: dict[str, Path], tmp_path: Path, name: str
) -> None:
    ray, local = extracted(media, name, "ray", tmp_path / "ray"), small.arrays(stores[name])
    assert len(local) > 20
    assert small.differences(local, small.arrays(ray)) == []
    done = avel("store", "verify", str(ray), "--media", str(media / name))
    assert done.returncode == 0, done.stdout + done.stderr
