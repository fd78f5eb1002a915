"""Serving the page to this machine, until it is interrupted."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import uvicorn

from ..errors import CidmError, ExitCode
from ..files.writing import unwritable
from .app import application
from .jobs import Process, Queue
from .place import Place

LOOPBACK = "127.0.0.1"


def run(place: Place, port: int, tell: Callable[[str], None], *, browser: bool) -> str:
    """Serves until Ctrl-C, and returns the address it was at.

    Args:
        tell: hears the address, token and all.
        browser: whether it is opened there.

    Raises:
        CidmError: where the port or the folder cannot be had.
    """
    try:
        Path(place.folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(Path(place.folder), error) from error
    token = secrets.token_urlsafe(24)
    with _listening(port) as listening:
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/{token}/"
        app = application(place, Queue(partial(Process, place), place.shown), token)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        tell(f"the studio is at {address}")
        if browser:
            threading.Timer(0.5, webbrowser.open, [address]).start()
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listening])
    return address


def _listening(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        # From here on a browser that is told of the address waits for an answer and is not turned away.
        listening.listen()
    except OSError as error:
        listening.close()
        hint = "give another --port, or leave it out"
        raise CidmError(f"port {port}: {error.strerror}", hint, ExitCode.USAGE) from error
    return listening
