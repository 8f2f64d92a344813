"""A model hub on this machine: a folder of files behind the few requests that a download makes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub:
    """Serves ``files`` as every repository; ``refuse`` is (status, the hub's error code).

    ``requests`` lists what was asked for, ``cut`` a file whose transfer breaks off half-way once.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.refuse: tuple[int, str] | None = None
        self.cut = ""
        self.requests: list[tuple[str, str, str]] = []

    def listing(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "rfilename": name, "size": len(data), "oid": _etag(data)}
            for name, data in self.files.items()
        ]


@contextmanager
def running_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[LocalHub]:
    """A hub that huggingface_hub talks to inside the block, with an empty cache."""
    from huggingface_hub import constants

    hub = LocalHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    place = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        place + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _etag(data: bytes) -> str:
    return sha1(data, usedforsecurity=False).hexdigest()


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Stay silent."""

        def do_HEAD(self) -> None:
            self._file(body=False)

        def do_GET(self) -> None:
            if hub.refuse is not None:
                self._refuse(*hub.refuse)
            elif "/tree/" in self.path:
                self._json(hub.listing())
            elif self.path.startswith("/api/"):
                self._json({"id": "a/b", "sha": COMMIT, "siblings": hub.listing()})
            else:
                self._file(body=True)

        def _file(self, *, body: bool) -> None:
            match = re.fullmatch(r"/[^/]+/[^/]+/resolve/([^/]+)/(.+)", unquote(self.path))
            name = match[2] if match else ""
            wanted = self.headers.get("Range", "")
            hub.requests.append((self.command, name, wanted))
            if name not in hub.files:
                self._refuse(404, "EntryNotFound")
                return
            data = hub.files[name]
            start = int(re.findall(r"\d+", wanted)[0]) if body and wanted else 0
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", match[1] if match else COMMIT)
            self.send_header("ETag", f'"{_etag(data)}"')
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not body:
                return
            if name == hub.cut:
                hub.cut = ""
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            self.wfile.write(data[start:])

        def _json(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler
