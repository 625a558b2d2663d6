"""Media at paths and URLs, from real servers on the loopback interface."""

from __future__ import annotations

import functools
import gc
import http.server
import io
import os
import threading
import typing
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec import AbstractFileSystem

from catalog.errors import MediaError
from catalog.grid import GridRule, exact_seconds
from catalog.media import uri_of
from catalog.recipe import AudioSampling, Recipe
from catalog.video import Video
from pipeline.sandbox.fetch import local_copy
from pipeline.sandbox.parent import Decoded, Sandbox

PAYLOAD = bytes(range(256)) * 5000


class _Site(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; /short promises more than it sends, /busy fails twice before it answers."""

    busy = 2

    def do_GET(self) -> None:
        if self.path == "/short.mp4":
            self._answer(200, PAYLOAD, len(PAYLOAD) + 1000)
        elif self.path == "/busy.mp4" and _Site.busy:
            _Site.busy -= 1
            self._answer(503, b"", 0)
        elif self.path == "/busy.mp4":
            self._answer(200, PAYLOAD, len(PAYLOAD))
        elif self.path == "/never.mp4":
            self._answer(500, b"", 0)
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if self.path in ("/short.mp4", "/busy.mp4", "/never.mp4"):
            self.send_error(405)
        else:
            super().do_HEAD()

    def _answer(self, code: int, body: bytes, promised: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "clip 1.mp4").write_bytes(PAYLOAD)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Site, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    gc.collect()  # the client's closed connections, here rather than in some later test


@pytest.mark.parametrize("name", ["a.mp4", "-dash.mp4", "new\nline.mp4", "per%20cent.mp4", "é日本.mp4", "C:/x.mp4"])
def test_fetch_local_path_is_given_back_as_it_is(name: str) -> None:
    with local_copy(name) as path:
        assert str(path) == name


@pytest.mark.parametrize("name", [b"a b#%.mp4", b"not\xfftext.mp4"])
def test_fetch_file_url_is_its_path(tmp_path: Path, name: bytes) -> None:
    place = tmp_path / os.fsdecode(name)
    place.write_bytes(PAYLOAD)
    for uri in (place.as_uri(), uri_of(place)):
        with local_copy(uri) as path:
            assert path == place


def test_fetch_file_url_of_another_host_is_fetch_failed() -> None:
    with pytest.raises(MediaError, match="host 'there'") as caught, local_copy("file://there/a.mp4"):
        pass
    assert caught.value.reason == "fetch_failed"


def test_fetch_http_gives_the_bytes_and_leaves_nothing(
    site: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with local_copy(f"{site}/clip%201.mp4") as path:
        assert path.read_bytes() == PAYLOAD
        assert not list(scratch.iterdir())  # a kill at this point would leave nothing either
    assert not path.exists()


def test_fetch_http_absent_is_missing_file(site: str) -> None:
    with pytest.raises(MediaError, match="nothing lies at") as caught, local_copy(f"{site}/none.mp4"):
        pass
    assert caught.value.reason == "missing_file"


def test_fetch_busy_server_is_asked_again(site: str) -> None:
    _Site.busy = 2
    with local_copy(f"{site}/busy.mp4", pauses_s=(0.0, 0.0)) as path:
        assert path.read_bytes() == PAYLOAD
    assert _Site.busy == 0


class _Sized(io.BytesIO):
    size = 0


class _Faulty(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A backend that gives less than it says, and no error; from the third try on it is well."""

    protocol = "faulty"
    cachable = False
    tries = 0

    def _open(self, path: str, *_: object, **__: object) -> io.BytesIO:
        _Faulty.tries += 1
        file = _Sized(PAYLOAD if _Faulty.tries > 2 else 2 * PAYLOAD)
        file.size = len(PAYLOAD) if _Faulty.tries > 2 else 3 * len(PAYLOAD)
        return file


@pytest.mark.parametrize("pauses_s", [(), (0.0, 0.0)])
def test_fetch_backend_that_gives_too_little_is_asked_again_and_not_believed(
    monkeypatch: pytest.MonkeyPatch, pauses_s: tuple[float, ...]
) -> None:
    monkeypatch.setattr(_Faulty, "tries", 0)
    fsspec.register_implementation("faulty", _Faulty, clobber=True)
    if pauses_s:
        with local_copy("faulty://x.mp4", pauses_s=pauses_s) as path:
            assert path.read_bytes() == PAYLOAD
    else:
        with (
            pytest.raises(MediaError, match="2560000 of 3840000 bytes came") as caught,
            local_copy("faulty://x.mp4", pauses_s=pauses_s),
        ):
            pass
        assert caught.value.reason == "fetch_failed"


@pytest.mark.parametrize("name", ["short.mp4", "never.mp4"])
def test_fetch_broken_transfer_is_fetch_failed(site: str, name: str) -> None:
    with pytest.raises(MediaError) as caught, local_copy(f"{site}/{name}", pauses_s=(0.0, 0.0)):
        pass
    assert caught.value.reason == "fetch_failed"


def test_fetch_unknown_scheme_is_fetch_failed() -> None:
    with pytest.raises(MediaError, match="nosuch") as caught, local_copy("nosuch://x/y.mp4"):
        pass
    assert caught.value.reason == "fetch_failed"


class _Proxy(_Site):
    """Answers for a host that exists nowhere, as a proxy does: by the whole address; keeps what it was asked for."""

    asked: typing.ClassVar[list[str]] = []

    def do_GET(self) -> None:
        _Proxy.asked.append(self.path)
        known = self.path.startswith("http://media.invalid/")
        self._answer(200 if known else 502, PAYLOAD if known else b"", len(PAYLOAD) if known else 0)

    do_HEAD = do_GET


def test_fetch_http_goes_through_the_proxy_that_the_usual_variable_names(
    monkeypatch: pytest.MonkeyPatch, site: str
) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with local_copy("http://media.invalid/a.mp4") as path:
            assert path.read_bytes() == PAYLOAD
        assert "http://media.invalid/a.mp4" in _Proxy.asked
        with local_copy(f"{site}/clip%201.mp4") as path:
            assert path.read_bytes() == PAYLOAD
        assert not [address for address in _Proxy.asked if "127.0.0.1" in address]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        gc.collect()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    boto3 = pytest.importorskip("boto3")
    moto_server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AVEL_S3_ENDPOINT", f"http://{host}:{port}")
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket="media")
    client.put_object(Bucket="media", Key="a b/clip.mp4", Body=PAYLOAD)
    yield "media"
    server.stop()


def test_fetch_s3_gives_the_bytes_and_knows_what_is_absent(bucket: str) -> None:
    with local_copy(f"s3://{bucket}/a b/clip.mp4") as path:
        assert path.read_bytes() == PAYLOAD
    with pytest.raises(MediaError) as caught, local_copy(f"s3://{bucket}/none.mp4"):
        pass
    assert caught.value.reason == "missing_file"


def test_fetch_an_error_inside_the_block_stays_itself(site: str) -> None:
    with pytest.raises(FileNotFoundError, match="mine"), local_copy(f"{site}/clip%201.mp4"):
        raise FileNotFoundError("mine")


def test_fetch_copy_is_decoded_by_the_sandbox(site: str, tmp_path: Path, shared: Path) -> None:
    source = shared / "data" / "media" / "audio" / "onepeace_cow.flac"
    (tmp_path / "cow").write_bytes(source.read_bytes())  # no suffix: the content tells
    recipe = Recipe(
        name="r",
        encoder="none",
        grid=GridRule(window_s=exact_seconds(1), hop_s=exact_seconds(1)),
        video=None,
        audio=AudioSampling(rate_hz=16000),
    )
    with local_copy(f"{site}/cow") as path, Sandbox() as sandbox:
        *_, last = sandbox.decode(Video(id="cow", uri=site), path, [recipe])
    assert isinstance(last, Decoded)
    assert (last.outcome.status, last.outcome.reason, float(last.duration_s)) == ("partial", "no_video", 5.0)
