"""Who may talk to the server: this machine's own browser, from the page itself, with the token in the address."""

from __future__ import annotations

from secrets import compare_digest

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ["127.0.0.1", "localhost"]
"""Names that a browser on this machine calls it by. Any other is another site's name that leads here."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Of every answer. The token stands in the address: none may leave with a link, a cache or a frame."""


class Guard:
    """Refuses requests without the token and those of other sites."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers 403 or 404."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer: ASGIApp = self.app
        if not compare_digest(_first(scope["path"]).encode(), self.token.encode()):
            answer = PlainTextResponse("open the address that `cidm studio` printed", 404)
        elif _foreign(Headers(scope=scope)):
            answer = PlainTextResponse("another site asked for this", 403)
        await answer(scope, receive, sealed)


def _first(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]


def _foreign(headers: Headers) -> bool:
    """Whether a request says that it comes from elsewhere; one by no browser says nothing of the kind."""
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{headers.get('host')}":
        return True
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
