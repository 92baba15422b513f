"""Who may ask the dashboard what: its user alone, from this machine, from its own page. Source: own.

The pages may show patients' pictures, and on a login node everybody reaches the loopback device. So a request needs the token
that was printed where the dashboard was started, once in the address and from then on in a cookie that no script can read and
no other site sends. A name that another site has pointed at this machine (DNS rebinding) is not answered at all.
"""

import secrets
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Names under which a browser on this machine reaches it.
HOSTS = ("127.0.0.1", "localhost", "[::1]")
TOKEN = "token"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the rest of the policy stands in each page
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Middleware around everything else.

    Args:
        app: what is guarded.
        token: what a request must know.
        port: names the cookie, as browsers share cookies among the ports of a host.
        posts: paths that may be posted to; everything else is only read.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, posts: tuple[str, ...] = ()) -> None:
        self.app, self.token, self.cookie, self.posts = app, token, f"meddiff-{port}", posts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks over a socket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self.refusal(Request(scope))
        await (refused or self.app)(scope, receive, guarded)

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request that is not let through; None lets it through."""
        headers, path = request.headers, request.url.path
        if host_of(headers) not in HOSTS:
            return PlainTextResponse("This dashboard answers to the names of this machine only.", 400)
        if request.method not in ("GET", "HEAD") and not (request.method == "POST" and path in self.posts):
            return PlainTextResponse("The dashboard is only read.", 405, {"Allow": "GET, HEAD"})
        given = request.query_params.get(TOKEN)
        if given is not None and request.method == "GET" and self.knows(given):
            # Not a redirect: to a link that was clicked on another site, such as a notebook's, no strict cookie would follow.
            answer = PlainTextResponse("One moment.", headers={"Refresh": "0; url=/"})
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return answer
        own = ("same-origin",) if request.method == "POST" else ("same-origin", "none")
        if headers.get("sec-fetch-site", "same-origin") not in own:
            return PlainTextResponse("Another site asked for this.", 403)
        if not self.knows(cookie_of(headers, self.cookie)):
            return PlainTextResponse("Open the address that `lightning dashboard` printed, with its token.", 403)
        return None

    def knows(self, token: str) -> bool:
        """Compared in a time that does not tell how much of it is right."""
        return secrets.compare_digest(token.encode(errors="replace"), self.token.encode())


def host_of(headers: Headers) -> str:
    """The ``Host`` without its port: ``[::1]:8000`` -> ``[::1]``."""
    host = headers.get("host", "")
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def cookie_of(headers: Headers, name: str) -> str:
    """The value of a cookie; "" without one."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""
