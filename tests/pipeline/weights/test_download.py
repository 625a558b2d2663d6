"""Files from real servers on the loopback interface: well-behaved, slow, dropping, changing and lying ones."""

from __future__ import annotations

import datetime
import ipaddress
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.weights.download import DownloadError, download
from tests.pipeline.publisher import Offer, Publisher, published

CONTENT = random.Random(1).randbytes(30_000)
OTHER = random.Random(2).randbytes(30_000)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pipeline.weights.download._PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture
def site() -> Iterator[Publisher]:
    with published() as publisher:
        yield publisher


def fetched(site: Publisher, target: Path, *, size: int | None = None) -> list[tuple[int, int | None]]:
    """Downloads /net.pt, which must be CONTENT; the progress that was told."""
    told: list[tuple[int, int | None]] = []

    def verify(part: Path) -> None:
        if part.read_bytes() != CONTENT:
            raise ValueError("another content")

    download(
        f"{site.url}/net.pt", target, verify=verify, size=size, on_progress=lambda done, of: told.append((done, of))
    )
    return told


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_download_gives_the_bytes_tells_progress_and_leaves_nothing_else(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT)
    told = fetched(site, tmp_path / "net.pt", size=len(CONTENT))
    assert (tmp_path / "net.pt").read_bytes() == CONTENT
    assert names(tmp_path) == {"net.pt"}
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)


@pytest.mark.parametrize("validator", ["etag", "date"])
def test_download_dropped_several_times_fetches_no_byte_twice(site: Publisher, tmp_path: Path, validator: str) -> None:
    etag, date = ('"1"', None) if validator == "etag" else (None, "Wed, 21 Oct 2015 07:28:00 GMT")
    # More drops than tries in a row are allowed: new bytes begin the count anew.
    site.offers["/net.pt"] = Offer(CONTENT, etag=etag, last_modified=date, drops=[7000, 1, 0, 0, 9000, 300, 1200, 5])
    fetched(site, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").read_bytes() == CONTENT
    assert site.sent == len(CONTENT)
    ranges = [request.range for request in site.requests]
    assert ranges[:3] == [None, "bytes=7000-", "bytes=7001-"]


def test_download_given_up_keeps_its_part_and_the_next_call_goes_on(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT, drops=[12_000, 0, 0, 0])
    with pytest.raises(DownloadError, match=r"dropped at 12000 of 30000 bytes \(4 tries\); 12000 bytes are kept"):
        fetched(site, tmp_path / "net.pt")
    assert names(tmp_path) == {"net.pt.part", "net.pt.part.json"}
    told = fetched(site, tmp_path / "net.pt")
    assert told[0] == (12_000, 30_000)
    assert site.sent == len(CONTENT)
    assert names(tmp_path) == {"net.pt"}


def test_download_server_without_ranges_starts_over(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT, takes_range=False, drops=[12_000])
    told = fetched(site, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").read_bytes() == CONTENT
    assert [request.status for request in site.requests] == [200, 200]
    assert told.count((0, 30_000)) == 2, "the bar goes back, as the bytes do"


def test_download_server_that_always_drops_and_starts_over_is_given_up(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT, takes_range=False, drops=[5000] * 50)
    with pytest.raises(DownloadError, match="dropped at 5000 of 30000"):
        fetched(site, tmp_path / "net.pt")
    assert len(site.requests) == 4  # the first brought bytes, then three tries without a new one


@pytest.mark.parametrize("takes_if_range", [True, False])
def test_download_file_changed_between_two_parts_is_fetched_whole(
    site: Publisher, tmp_path: Path, takes_if_range: bool
) -> None:
    site.offers["/net.pt"] = Offer(OTHER, etag='"old"', drops=[12_000, 0, 0, 0])
    with pytest.raises(DownloadError):
        fetched(site, tmp_path / "net.pt")
    site.offers["/net.pt"] = Offer(CONTENT, etag='"new"', takes_if_range=takes_if_range)
    fetched(site, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").read_bytes() == CONTENT
    assert [request.status for request in site.requests[4:]] == ([200] if takes_if_range else [206, 200])


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_download_without_strong_validator_starts_over(site: Publisher, tmp_path: Path, etag: str | None) -> None:
    site.offers["/net.pt"] = Offer(CONTENT, etag=etag, drops=[12_000])
    fetched(site, tmp_path / "net.pt")
    assert [request.range for request in site.requests] == [None, None]


def test_download_of_unknown_length_ends_where_the_server_ends(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT, tells_length=False)
    assert fetched(site, tmp_path / "net.pt")[-1] == (30_000, None)
    assert (tmp_path / "net.pt").read_bytes() == CONTENT


def test_download_of_unknown_length_cut_short_is_refused(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT, tells_length=False, drops=[12_000])
    with pytest.raises(ValueError, match="another content"):
        fetched(site, tmp_path / "net.pt")
    assert names(tmp_path) == set()


def test_download_wrong_content_leaves_nothing_usable(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(OTHER)
    with pytest.raises(ValueError, match="another content"):
        fetched(site, tmp_path / "net.pt")
    assert names(tmp_path) == set()


def test_download_wrong_size_is_refused_before_it_comes(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT[:-1])
    with pytest.raises(DownloadError, match="needed has 30000 bytes, the server offers 29999"):
        fetched(site, tmp_path / "net.pt", size=30_000)
    assert names(tmp_path) == set()


def test_download_stalled_server_counts_as_dropped(
    site: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readinto = socket.SocketIO.readinto
    limits_s: list[float | None] = []

    def impatient(stream: Any, buffer: Any) -> int | None:
        # Once all has come that is to come, a wait of any length is in vain, on any machine: a short one will do.
        if (tmp_path / "net.pt.part").exists() and (tmp_path / "net.pt.part").stat().st_size == 12_345 and not limits_s:
            limits_s.append(stream._sock.gettimeout())
            stream._sock.settimeout(0.01)
        return readinto(stream, buffer)

    monkeypatch.setattr(socket.SocketIO, "readinto", impatient)
    site.offers["/net.pt"] = Offer(CONTENT, holds_at=12_345)
    fetched(site, tmp_path / "net.pt")  # the second request begins behind the place where the first one is held
    assert [request.range for request in site.requests] == [None, "bytes=12345-"]
    assert limits_s == [60.0]


def test_download_slow_server_tells_bytes_as_they_come(site: Publisher, tmp_path: Path) -> None:
    offer = site.offers["/net.pt"] = Offer(CONTENT, holds_at=500)
    seen = []

    def on_progress(done: int, total: int | None) -> None:
        seen.append(done)
        if done == 500:
            assert (tmp_path / "net.pt.part").stat().st_size == 500, "they are in the file by then"
            offer.go.set()

    download(f"{site.url}/net.pt", tmp_path / "net.pt", verify=lambda part: None, on_progress=on_progress)
    assert 500 in seen
    assert seen[-1] == 30_000


def test_download_part_that_is_whole_is_only_verified(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT)

    def interrupted(part: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{site.url}/net.pt", tmp_path / "net.pt", verify=interrupted)
    fetched(site, tmp_path / "net.pt")
    assert len(site.requests) == 1


def test_download_part_longer_than_the_file_is_thrown_away(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(OTHER + OTHER, drops=[40_000, 0, 0, 0])
    with pytest.raises(DownloadError):
        fetched(site, tmp_path / "net.pt")
    site.offers["/net.pt"] = Offer(CONTENT, takes_if_range=False)
    fetched(site, tmp_path / "net.pt")
    assert [request.status for request in site.requests[-2:]] == [416, 200]


@pytest.mark.parametrize(
    "state",
    [
        *("", "[]", '{"url": 1}'),
        # From elsewhere, where the same ETag may mean another file; and of a file shorter than its part.
        '{"url": "http://elsewhere/net.pt", "etag": "\\"1\\"", "last_modified": null, "total": 30000}',
        '{"url": "URL/net.pt", "etag": "\\"1\\"", "last_modified": null, "total": 8999}',
    ],
)
def test_download_part_of_unknown_origin_is_not_used(site: Publisher, tmp_path: Path, state: str) -> None:
    site.offers["/net.pt"] = Offer(CONTENT)
    (tmp_path / "net.pt.part").write_bytes(OTHER[:9000])
    (tmp_path / "net.pt.part.json").write_text(state.replace("URL", site.url))
    fetched(site, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").read_bytes() == CONTENT
    assert [request.range for request in site.requests] == [None]


def test_download_busy_server_is_asked_again(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT, busy=[503, 429])
    fetched(site, tmp_path / "net.pt")
    assert [request.status for request in site.requests] == [503, 429, 200]


@pytest.mark.parametrize(
    ("status", "message"), [(404, "no such file any more"), (403, "access is refused"), (401, "wants a login")]
)
def test_download_refusal_is_final(site: Publisher, tmp_path: Path, status: int, message: str) -> None:
    site.offers["/net.pt"] = Offer(CONTENT, busy=[status])
    with pytest.raises(DownloadError, match=f"{status}.*{message}"):
        fetched(site, tmp_path / "net.pt")
    assert len(site.requests) == 1


def test_download_nobody_answers_says_so_soon(tmp_path: Path) -> None:
    with published() as gone:
        pass
    with pytest.raises(DownloadError, match=r"no connection \(ConnectionRefusedError.* \(3 tries\)"):
        fetched(gone, tmp_path / "net.pt")


def test_download_web_page_is_not_taken_for_the_file(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(b"<html>please log in", content_type="text/html; charset=utf-8")
    with pytest.raises(DownloadError, match="a web page instead of the file"):
        download(f"{site.url}/net.pt", tmp_path / "net.pt", verify=lambda part: None)
    assert names(tmp_path) == set()


def test_download_full_disk_is_told(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = Offer(CONTENT)
    (tmp_path / "net.pt.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"is full .*make room"):
        fetched(site, tmp_path / "net.pt")
    assert not (tmp_path / "net.pt").exists()


def test_download_larger_than_the_disk_is_not_begun(site: Publisher, tmp_path: Path) -> None:
    site.offers["/net.pt"] = offer = Offer(CONTENT)
    offer.content = _Huge(CONTENT)
    with pytest.raises(DownloadError, match=f"needs {2**60} bytes more"):
        fetched(site, tmp_path / "net.pt")
    assert names(tmp_path) == set()


class _Huge(bytes):
    """Says that it is an exbibyte long."""

    def __len__(self) -> int:
        return 2**60


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "/etc/hostname", "s3://a/b"])
def test_download_other_schemes_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only http and https"):
        download(url, tmp_path / "x", verify=lambda part: None)


def test_download_follows_a_redirect_and_goes_on_behind_it(site: Publisher, tmp_path: Path) -> None:
    site.offers["/real"] = Offer(CONTENT, drops=[12_000])
    site.offers["/net.pt"] = Offer(b"", redirect=f"{site.url}/real")
    fetched(site, tmp_path / "net.pt")
    assert site.sent == 30_000


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_download_redirect_to_another_scheme_is_refused(site: Publisher, tmp_path: Path, place: str) -> None:
    site.offers["/net.pt"] = Offer(b"", redirect=place)
    with pytest.raises(DownloadError, match=r"(?i)redirect"):
        fetched(site, tmp_path / "net.pt")
    assert len(site.requests) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_download_https_stays_https(
    site: Publisher, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    site.offers["/net.pt"] = Offer(CONTENT)
    with published(certificate) as safe:
        safe.offers["/net.pt"] = Offer(CONTENT)
        fetched(safe, tmp_path / "net.pt")
        safe.offers["/net.pt"] = Offer(b"", redirect=f"{site.url}/net.pt")
        with pytest.raises(DownloadError, match=r"refused, since it redirects to http://.* \(needs https\)"):
            fetched(safe, tmp_path / "again.pt")
    assert site.requests == []


def test_download_untrusted_certificate_is_final(certificate: Path, tmp_path: Path) -> None:
    with published(certificate) as safe:
        safe.offers["/net.pt"] = Offer(CONTENT)
        with pytest.raises(DownloadError, match=r"certificate is not trusted .*SSL_CERT_FILE"):
            fetched(safe, tmp_path / "net.pt")
    assert safe.requests == []
