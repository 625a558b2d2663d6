"""A web server on the loopback interface that publishes files, well or badly, and counts what it sent."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Offer:
    """One file and how it is served.

    Attributes:
        drops: in bytes of body, one a request from the first on: the connection ends after so many.
        busy: status codes that are answered first, one a request.
        takes_if_range: False for a server that sends the rest even of another file.
        holds_at: the body stops after so many bytes until `go` is set.
    """

    content: bytes
    etag: str | None = '"1"'
    last_modified: str | None = None
    takes_range: bool = True
    takes_if_range: bool = True
    tells_length: bool = True
    content_type: str = "application/octet-stream"
    drops: list[int] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)
    redirect: str | None = None
    holds_at: int | None = None
    go: threading.Event = field(default_factory=threading.Event)


@dataclass
class Request:
    """What was asked, and how many bytes of body went out."""

    path: str
    range: str | None
    status: int = 0
    sent: int = 0


class Publisher:
    """The server: `offers` by path, and the `requests` so far."""

    def __init__(self) -> None:
        self.offers: dict[str, Offer] = {}
        self.requests: list[Request] = []
        self.asked = threading.Event()  # set when a request has come
        self.url = ""

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(request.sent for request in self.requests)


@contextlib.contextmanager
def published(certificate: Path | None = None) -> Iterator[Publisher]:
    """A running publisher; with TLS where a certificate (with its key) is given."""
    publisher = Publisher()

    class Handler(_Handler):
        site = publisher

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    publisher.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield publisher
    finally:
        for offer in publisher.offers.values():
            offer.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Publisher

    def do_GET(self) -> None:
        request = Request(self.path, self.headers.get("Range"))
        self.site.requests.append(request)
        self.site.asked.set()
        offer = self.site.offers.get(self.path)
        # The client may be gone at any point.
        with contextlib.suppress(ConnectionError):
            if offer is None:
                self._head(request, 404)
            elif offer.busy:
                self._head(request, offer.busy.pop(0))
            elif offer.redirect is not None:
                self._head(request, 302, Location=offer.redirect)
            else:
                self._serve(request, offer)

    def _serve(self, request: Request, offer: Offer) -> None:
        size, first = len(offer.content), 0
        if request.range is not None and offer.takes_range:
            told = self.headers.get("If-Range")
            if not offer.takes_if_range or told in (None, offer.etag, offer.last_modified):
                first = int(request.range.removeprefix("bytes=").removesuffix("-"))
        if first >= size > 0:
            self._head(request, 416, Content_Range=f"bytes */{size}")
            return
        headers = {"Content_Type": offer.content_type, "ETag": offer.etag, "Last_Modified": offer.last_modified}
        if offer.tells_length:
            headers["Content_Length"] = str(size - first)
        if first:
            headers["Content_Range"] = f"bytes {first}-{size - 1}/{size}"
        self._head(request, 206 if first else 200, **headers)
        stop = min(size, first + (offer.drops.pop(0) if offer.drops else size))
        for low in range(first, stop, 1000):
            high = min(low + 1000, stop)
            if offer.holds_at is not None and low < offer.holds_at <= high:
                self._send(request, offer.content[low : offer.holds_at])
                offer.go.wait()
                low = offer.holds_at
            self._send(request, offer.content[low:high])

    def _send(self, request: Request, block: bytes) -> None:
        self.wfile.write(block)
        request.sent += len(block)

    def _head(self, request: Request, status: int, **headers: str | None) -> None:
        request.status = status
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass
