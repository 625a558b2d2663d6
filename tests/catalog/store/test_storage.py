"""Where stores lie. S3 is a real server of the same protocol (moto) on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import StoreBusy, StoreError
from catalog.store.reader import create_store, exists, open_store
from catalog.store.storage import LOCK_NAME, place
from catalog.store.writer import open_writer
from tests import sample_store as sample

PROJECT = Path(__file__).resolve().parents[3]


def test_place_reads_paths_and_urls() -> None:
    assert place("/a/b").path == Path("/a/b")
    assert place("a:b").path == Path.cwd() / "a:b"
    assert place("file:///a/b%20c").path == Path("/a/b c")
    bucket = place("s3://bucket/some/prefix/")
    assert (bucket.bucket, bucket.prefix, bucket.path) == ("bucket", "some/prefix", None)
    for wrong in ("", "s3://bucket", "s3:///prefix", "https://x/y", "a\0b"):
        with pytest.raises(ValueError, match="store"):
            place(wrong)


def test_memory_store_lives_in_this_process() -> None:
    store = sample.make("memory://here", [sample.result(1)])
    assert exists("memory://here")
    assert open_store("memory://here").videos().ids == store.videos().ids == ["v1"]
    assert not exists("memory://there")


def test_store_folder_may_be_moved(tmp_path: Path) -> None:
    sample.make(tmp_path / "s", [sample.result(1)])
    (tmp_path / "s").rename(tmp_path / "moved")
    assert open_store(tmp_path / "moved").videos().ids == ["v1"]


def test_store_in_an_unwritable_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="no store can be made there: "):
        create_store(tmp_path / "file" / "s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("whole") / "s"
    sample.make(path, [sample.result(i) for i in range(3)])
    return path


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("refs", "refs/branch.main/ref.json"),
        ("refs/branch.main", "refs/branch.main/ref.json"),
        ("snapshots", "snapshots"),
        ("manifests", "manifests/"),
        ("chunks", "chunks/"),
    ],
)
def test_incomplete_copy_of_a_store_is_told_as_that(whole: Path, tmp_path: Path, lost: str, named: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    shutil.rmtree(copy / lost)

    def use() -> None:
        store = open_store(copy)
        store.read("tiny", "visual")

    with pytest.raises(StoreError, match=rf"part of a store: {named}.* is missing; copy the whole store again"):
        use()
    if lost in ("refs", "refs/branch.main", "snapshots"):
        with pytest.raises(StoreError, match="part of a store"):
            exists(copy)
        with pytest.raises(StoreError, match="part of a store"):
            create_store(copy)


def test_empty_reference_is_an_incomplete_copy(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "copy")
    (tmp_path / "copy" / "refs" / "branch.main" / "ref.json").write_bytes(b"")
    with pytest.raises(StoreError, match=r"part of a store: refs/branch.main/ref.json is missing"):
        open_store(tmp_path / "copy")


def test_folder_of_something_else_is_no_incomplete_store(tmp_path: Path) -> None:
    (tmp_path / "chunks").mkdir()
    assert not exists(tmp_path)
    with pytest.raises(StoreError, match="the folder is not empty"):
        create_store(tmp_path)


def test_every_file_of_a_store_follows_the_umask_and_the_folders_group(tmp_path: Path) -> None:
    team = tmp_path / "team"
    team.mkdir()
    team.chmod(0o2775)
    before = os.umask(0o002)
    try:
        sample.make(team / "s", [sample.result(1)])
    finally:
        os.umask(before)
    for path in (team / "s").rglob("*"):
        mode = path.stat().st_mode & 0o7777
        assert mode == (0o2775 if path.is_dir() else 0o664), path
    assert (team / "s" / LOCK_NAME).exists()


def test_lock_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    sample.make(tmp_path / "s", [sample.result(1)])
    (tmp_path / "s" / LOCK_NAME).unlink()
    (tmp_path / "s" / LOCK_NAME).mkdir()  # whoever opens it for writing is refused, root too
    with pytest.raises(StoreError, match=f"{LOCK_NAME} must be writable"), open_writer(open_store(tmp_path / "s")):
        pass


FULL = """
import resource
from tests import sample_store as sample
from catalog.store.reader import create_store
from catalog.store.writer import open_writer

store = create_store(STORE)
with open_writer(store) as writer:
    writer.ensure_recipe(sample.recipe(), visual_shape=(6,), audio_shape=(4,), card={})
    writer.append([sample.result(1)], ["tiny"])
    writer.commit("one")
    # As on a full disk, writes are refused by the system; larger ones alone, so that the first commit is there.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    writer.append([sample.result(i, count=400) for i in range(2, 12)], ["tiny"])
    writer.commit("more")
"""


def test_write_that_the_system_refuses_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    code = FULL.replace("STORE", repr(str(tmp_path / "s")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert f"StoreError: {tmp_path / 's'}: cannot be written to: File too large; allow larger files" in said
    assert "then the same command goes on" in said
    store = open_store(tmp_path / "s")
    assert store.video_ids() == ["v1"]
    with open_writer(store) as writer:
        writer.append([sample.result(i, count=400) for i in range(2, 12)], ["tiny"])
        writer.commit("more")
    assert len(store.video_ids()) == 11


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    boto3 = pytest.importorskip("boto3")
    server_module = pytest.importorskip("moto.server")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AVEL_S3_ENDPOINT", f"http://{host}:{port}")
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="team")
        yield "team"
    finally:
        server.stop()


def test_s3_store_is_written_and_read(bucket: str) -> None:
    uri = f"s3://{bucket}/stores/ave"
    assert not exists(uri)
    with pytest.raises(StoreError, match="no store there"):
        open_store(uri)
    sample.make(uri, [sample.result(1), sample.quarantined(2)])
    store = open_store(uri)
    assert store.videos().ids == ["v1", "v2"]
    assert len(store.read("tiny", "visual").values) == 3
    with pytest.raises(StoreError, match="already exists; open it"):
        create_store(uri)


def test_s3_second_committer_is_told_and_nothing_is_lost(bucket: str) -> None:
    uri = f"s3://{bucket}/stores/two"
    sample.make(uri, [sample.result(1)])
    with open_writer(open_store(uri)) as slow, open_writer(open_store(uri)) as fast:
        slow.append([sample.result(2)], ["tiny"])
        fast.append([sample.result(3)], ["tiny"])
        fast.commit("fast")
        with pytest.raises(StoreBusy, match="another writer committed meanwhile"):
            slow.commit("slow")
    assert open_store(uri).videos().ids == ["v1", "v3"]
