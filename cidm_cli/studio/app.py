"""The server: addresses, and what answers there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError, validate_call
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from cidm_registry import NotFound, RegistryError

from ..errors import CidmError, ExitCode
from ..files.json_files import parse_json
from ..files.reading import decode_utf8
from . import asking, concepts, gallery, layouts, uploads
from .guard import HOSTS, Guard
from .jobs import Queue
from .place import Place

MAX_BODY = 1 << 20
"""Bytes of a request, but for uploads."""
MAX_UPLOAD = 512 << 20
TICK = 0.1
"""Seconds between two looks at the queue for each page that listens."""
IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


def application(place: Place, queue: Queue, token: str) -> Starlette:
    """All that the page asks for, under the token."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(queue.close)

    def route(method: str, path: str, function: Callable[..., Any], *given: Any) -> Route:
        return Route(path, _answering(place, partial(function, *given)), methods=[method])

    api: list[BaseRoute] = [
        route("GET", "/concepts", concepts.listed, place),
        route("GET", "/concepts/{name}/image", _preview, place),
        route("PATCH", "/concepts/{name}", concepts.renamed, place),
        route("DELETE", "/concepts/{name}", concepts.removed, place),
        route("POST", "/concepts/{name}/restore", concepts.restored, place),
        route("POST", "/concepts/{name}/export", asking.export, place, queue),
        route("GET", "/templates", layouts.templates),
        route("GET", "/templates/{template}", layouts.begun, place),
        route("GET", "/layouts", layouts.listed, place),
        route("POST", "/layouts", layouts.looked_at, place),
        route("GET", "/layouts/{name}", layouts.opened, place),
        route("PUT", "/layouts/{name}", layouts.saved, place),
        route("GET", "/images", gallery.listed, place),
        route("GET", "/images/{image}", _image, place),
        route("GET", "/images/{image}/layout", layouts.of_image, place),
        route("POST", "/images/{image}/again", asking.again, place, queue),
        route("POST", "/images/{image}/{kind}", asking.over, place, queue),
        Route("/images", _uploading(place, gallery.kept), methods=["POST"]),
        route("GET", "/previews/{folder}/{image}", partial(_image, place, kind="previews")),
        route("GET", "/uploads", uploads.listed, place),
        Route("/uploads/{concept}", _uploading(place, uploads.kept), methods=["POST"]),
        route("GET", "/uploads/{folder}/{image}", partial(_image, place, kind="uploads")),
        route("PUT", "/uploads/{concept}/{name}", uploads.captioned, place),
        route("DELETE", "/uploads/{concept}/{name}", uploads.dropped, place),
        route("GET", "/exports/{folder}/{name}", _exported, place),
        route("POST", "/draw", asking.draw, place, queue),
        route("POST", "/{kind}", asking.learn, place, queue),
        route("GET", "/jobs/{number}/previews", asking.previews, place, queue),
        route("DELETE", "/jobs/{number}", _cancelled, queue),
        Route("/events", _events(queue)),
    ]
    page = StaticFiles(directory=Path(__file__).parent / "page", html=True)
    return Starlette(
        routes=[Mount(f"/{token}", routes=[Mount("/api", routes=api), Mount("/", page)])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS), Middleware(Guard, token=token)],
        lifespan=lifespan,
    )


def _answering(place: Place, function: Callable[..., Any]) -> Callable[[Request], Any]:
    """Answers with what a function returns; its arguments are those of the address and of the body."""
    checked = validate_call(config={"arbitrary_types_allowed": True})(function)

    async def answer(request: Request) -> Response:
        try:
            given = {**request.query_params, **await _body(request), **request.path_params}
            found = await run_in_threadpool(checked, **given)
        except Exception as error:
            return _refused(place, error)
        return found if isinstance(found, Response) else JSONResponse(found)

    return answer


async def _body(request: Request) -> dict[str, Any]:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY:
            raise CidmError("the request is too large", code=ExitCode.INVALID)
    body = parse_json(decode_utf8(content, "the request"), "the request") if content else {}
    if not isinstance(body, dict):
        raise CidmError("the request is not a JSON object", code=ExitCode.INVALID)
    return body


def _refused(place: Place, error: Exception) -> Response:
    """An error as the page shows it. Raises those that are faults of the program."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"message": f"{where}: {first['msg']}", "hint": None}, 422)
    if not isinstance(error, CidmError | RegistryError):
        raise error
    missing = isinstance(error, NotFound) or (
        isinstance(error, CidmError) and error.code == ExitCode.NOT_FOUND
    )
    told = {"message": place.shown(error.message), "hint": place.shown(error.hint or "")}
    return JSONResponse(told, 404 if missing else 409)


def _preview(place: Place, name: str) -> Response:
    content = place.workspace().preview(name)
    return Response(content, media_type=IMAGES[".png" if content.startswith(b"\x89PNG") else ".jpg"])


def _image(place: Place, image: str, folder: str = "", kind: str = "") -> Response:
    path = place.there(*filter(None, (kind, folder, image)))
    if path.suffix not in IMAGES:
        raise CidmError(f"{image}: no image", code=ExitCode.NOT_FOUND)
    return FileResponse(path, media_type=IMAGES[path.suffix])


def _exported(place: Place, folder: str, name: str) -> Response:
    return FileResponse(place.there("exports", folder, name), filename=name)


def _cancelled(queue: Queue, number: int) -> dict[str, Any]:
    return {"state": queue.cancel(number).state}


def _uploading(place: Place, keep: Callable[..., str]) -> Callable[[Request], Any]:
    """Keeps each file that is sent, ``keep(place, ..., name, content)``, and answers with their names."""

    async def upload(request: Request) -> Response:
        size = request.headers.get("content-length", "")
        try:
            if not size.isdecimal() or int(size) > MAX_UPLOAD:
                raise CidmError("too much at once", "drop fewer images at a time", ExitCode.INVALID)
            async with request.form(max_files=uploads.MAX_FILES, max_fields=0) as form:
                names = []
                for file in form.getlist("files"):
                    if isinstance(file, str):
                        raise CidmError("no file", code=ExitCode.INVALID)
                    content = await file.read()
                    said = {**request.path_params, "name": file.filename or "", "content": content}
                    names.append(await run_in_threadpool(keep, place, **said))
        except (CidmError, RegistryError) as error:
            return _refused(place, error)
        return JSONResponse({"names": names})

    return upload


def _events(queue: Queue) -> Callable[[Request], Any]:
    """Server-sent events: the state of the worker, and each job that changed, with the losses that came since."""

    async def events(request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            count = -1
            told: dict[int, int] = {}
            while True:
                if queue.count != count:
                    seen, jobs = queue.count, queue.since(count)
                    count = seen
                    for job in jobs:
                        job["from"] = told.get(job["id"], 0)
                        told[job["id"]] = len(job["losses"])
                        job["losses"] = job["losses"][job["from"] :]
                    yield f"data: {json.dumps({'worker': queue.worker, 'jobs': jobs})}\n\n"
                await asyncio.sleep(TICK)

        return StreamingResponse(stream(), media_type="text/event-stream")

    return events
