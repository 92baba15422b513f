"""The dashboard's pages: the report, live, over everything that is watched; and a page on which a model is asked. Source: own.

- ``/``: the page about all runs; ``/PATH/report.html``: the page about one of them;
- either with ``?data``: what its charts draw, JSON;
- ``/events``: server-sent events: ``changed``, whenever a run has written something;
- ``/try``: a page on which pictures and phrases are given to models (where there are any); POST asks them.

Only these addresses are known: nothing is looked up on the disk by what a browser asks for.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypedDict

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from meddiff.common.errors import UserError
from meddiff.reports.dashboard.guard import Guard
from meddiff.reports.dashboard.watched import Watched
from meddiff.reports.html import asset, environment, policy
from meddiff.reports.page.report import context, data, render
from meddiff.reports.page.tables import Tables
from meddiff.runs import names
from meddiff.runs.folder import Run

#: Seconds between two looks at the folders.
POLL = 1.0
#: A change is told again after this many times what it took to read the last one, at most so many seconds: a core stays idle.
REST, LONGEST_REST = 4.0, 10.0
#: Bytes of a picture that is asked about.
LARGEST = 64 * 2**20
KEEP_ALIVE = 15.0


class WordMap(TypedDict):
    """A word's map over the picture, ``picture`` a data URI."""

    word: str
    picture: str


class Absent(TypedDict):
    """The same picture asked for a finding that the phrase does not name; ``alike``: correlation with the phrase's map."""

    finding: str
    picture: str
    alike: float | None


class Answer(TypedDict):
    """What one model says of a picture and a phrase."""

    model: str
    phrase: str
    words: list[WordMap]
    absent: list[Absent]


class Asked(Protocol):
    """Models that answer; torch stays behind it."""

    @property
    def names(self) -> Sequence[str]:
        """What the models are called."""
        ...

    def __call__(self, picture: bytes, phrase: str) -> list[Answer]:
        """Raises UserError: no picture, no word."""
        ...


class Pages:
    """What is answered, made anew only when something was written.

    Args:
        watched: the runs.
        asks: whether there is a page on which one asks a model.

    Attributes:
        seconds: that the newest data took to be read.
    """

    def __init__(self, watched: Watched, asks: bool = False) -> None:
        self.watched, self.asks = watched, asks
        self.seconds = 0.0
        self._made: dict[tuple[str, str], tuple[int, str]] = {}
        self._lock = threading.Lock()

    def page(self, path: str) -> str | None:
        """A page; None where there is none at that address."""
        return self._once("page", path, self._render)

    def data(self, path: str) -> str | None:
        """The same page's tables as JSON."""
        return self._once("data", path, lambda runs: json.dumps(data(Tables(runs)), allow_nan=False))

    def _render(self, runs: list[Run]) -> str:
        if not runs:
            return render_page("empty.html", {"folder": self.watched.root})
        found = context(runs, self.watched.root / names.REPORT) | {"live": "asks" if self.asks else ""}
        return render(found, "live", asset("dashboard/live.js"), asset("dashboard/dashboard.css"))

    def _once(self, kind: str, path: str, make: Callable[[list[Run]], str]) -> str | None:
        with self._lock:  # two clients that ask at once wait for one answer
            version = self.watched.version
            known = self._made.get((kind, path))
            if known is not None and known[0] == version:
                return known[1]
            begun = time.monotonic()
            runs = self.watched.runs()
            if path:
                runs = [run for run in runs if self.address(run) == path]
                if not runs:
                    return None
            text = make(runs)
            self._made = {key: made for key, made in self._made.items() if made[0] == version}
            self._made[kind, path] = (version, text)
            if kind == "data":
                self.seconds = time.monotonic() - begun
            return text

    def address(self, run: Run) -> str:
        """Where the page of a run is, as the page of all runs links to it."""
        try:
            return (run.path / names.REPORT).relative_to(self.watched.root).as_posix()
        except ValueError:
            return ""


def render_page(name: str, values: Mapping[str, object]) -> str:
    """A page of the dashboard's own: ``empty.html`` or ``try.html``."""
    css = asset("page/page.css") + asset("dashboard/dashboard.css")
    script = asset("dashboard/try.js" if name == "try.html" else "dashboard/live.js")
    page = environment("dashboard").get_template(name)
    return page.render({**values, "policy": policy(css, [script], live=True), "css": css, "script": script})


class News:
    """Tells everybody who listens that something has changed."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self._changed = asyncio.Condition()
        self.told = 0
        self.ended = False

    async def end(self) -> None:
        """Let go of everybody who listens: a server waits for them before it stops."""
        async with self._changed:
            self.ended = True
            self._changed.notify_all()

    async def watch(self) -> None:
        """Look at the folders for ever."""
        while True:
            await asyncio.sleep(max(POLL, min(LONGEST_REST, REST * self.pages.seconds)))
            if await run_in_threadpool(self.pages.watched.scan):
                async with self._changed:
                    self.told += 1
                    self._changed.notify_all()

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events for one listener, until it goes away."""
        seen = self.told
        yield "retry: 2000\n\n"
        while not self.ended:
            if self.told > seen:
                seen = self.told
                yield "event: changed\ndata: \n\n"
            try:
                async with asyncio.timeout(KEEP_ALIVE), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                yield ":\n\n"  # a listener that is gone is only noticed when it is spoken to


def dashboard(watched: Watched, token: str, port: int, asked: Asked | None = None) -> Starlette:
    """The application.

    Args:
        watched: the runs.
        token: what a browser must know.
        port: where it will be served.
        asked: models of the page on which one asks; None has no such page.
    """
    pages = Pages(watched, asked is not None)
    news = News(pages)
    asking = asyncio.Lock()  # one question at a time: each takes all cores

    async def page(request: Request) -> Response:
        path = request.path_params.get("path", "")
        wanted = pages.data if "data" in request.query_params else pages.page
        text = await run_in_threadpool(wanted, path)
        if text is None:
            return PlainTextResponse("There is no run at this address (any more).", 404)
        return Response(text, media_type="application/json") if wanted is pages.data else HTMLResponse(text)

    async def events(request: Request) -> Response:
        return StreamingResponse(news.events(), media_type="text/event-stream")

    async def form(request: Request) -> Response:
        return HTMLResponse(render_page("try.html", {"models": asked.names if asked else ()}))

    async def ask(request: Request) -> Response:
        picture = bytearray()
        async for chunk in request.stream():
            picture += chunk
            if len(picture) > LARGEST:
                return JSONResponse({"problem": f"The picture has more than {LARGEST // 2**20} MiB."}, 413)
        assert asked is not None
        try:
            async with asking:
                answers = await run_in_threadpool(asked, bytes(picture), request.query_params.get("phrase", ""))
        except UserError as error:
            return JSONResponse({"problem": " ".join(map(str, error.args))}, 422)
        return JSONResponse(answers)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(pages.page, "")  # charts are read once, before anybody waits for them
        task = asyncio.create_task(news.watch())
        yield
        task.cancel()

    async def icon(request: Request) -> Response:
        return Response(status_code=204)  # browsers ask for one beside what is no page

    routes = [Route("/", page), Route("/events", events), Route("/favicon.ico", icon)]
    if asked is not None:
        routes += [Route("/try", form), Route("/try", ask, methods=["POST"])]
    routes.append(Route("/{path:path}", page))
    guard = Middleware(Guard, token=token, port=port, posts=("/try",) if asked is not None else ())
    app = Starlette(routes=routes, middleware=[guard], lifespan=lifespan)
    app.state.news = news
    return app
