"""A hub on this machine: serves a folder as one repository, to the real clients."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(folder: Path, name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """While open, ``name`` on the hub is the folder; yields the names of the files that were fetched."""
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            asked = re.fullmatch(rf"/{name}/resolve/[^/]+/(.+)", path)
            if asked and (folder / asked[1]).is_file():
                body = (folder / asked[1]).read_bytes()
                if with_body:
                    fetched.append(asked[1])
                self.reply(200, body, with_body, ETag=f'"{hashlib.sha256(body).hexdigest()}"')
            elif re.fullmatch(rf"/api/models/{name}(/revision/[^/]+)?", path):
                files = [{"rfilename": p.name} for p in sorted(folder.iterdir())]
                about = {"id": name, "sha": COMMIT, "siblings": files, "private": False, "tags": []}
                self.reply(200, json.dumps(about).encode(), with_body)
            else:
                code = "EntryNotFound" if asked or name in path else "RepoNotFound"
                self.reply(404, b"{}", with_body, **{"X-Error-Code": code})

        def reply(self, status: int, body: bytes, with_body: bool, **headers: str) -> None:
            self.send_response(status)
            for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    here = "huggingface_hub.constants"
    monkeypatch.setattr(f"{here}.ENDPOINT", address)
    monkeypatch.setattr(
        f"{here}.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{here}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{here}.HF_HUB_CACHE", str(cache))
    # A machine's way to the outside is no way to itself.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    try:
        yield fetched
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
