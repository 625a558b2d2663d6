"""Where stores lie. S3 is a real server of the same protocol (moto) on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import StoreBusy, StoreError
from catalog.store.reader import create_store, exists, open_store
from catalog.store.storage import place
from catalog.store.writer import open_writer
from tests import sample_store as sample


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
