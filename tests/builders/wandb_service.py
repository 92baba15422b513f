"""A server that knows enough of W&B's language to begin a run, and can stop answering after that."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = {
    "id": "QnVja2V0",
    "name": "abc",
    "displayName": "d",
    "description": "",
    "config": "{}",
    "sweepName": None,
    "project": {"id": "P", "name": "p", "entity": {"id": "E", "name": "e"}},
    "historyLineCount": 0,
}
VIEWER = {"id": "me", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}}


class Service:
    """Which questions came, and whether they are answered still.

    Attributes:
        address: of the server.
        asked: names of the questions, in order.
        silent: set it, and no question is answered any more; connections stay open.
    """

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[str] = []
        self.silent, self.ended = threading.Event(), threading.Event()

    def answer(self, path: str, body: bytes) -> object:
        try:
            said = json.loads(body)
        except ValueError:
            return {}
        query = str(said.get("query", "")) if isinstance(said, dict) else ""
        self.asked.append(next((name for name in ("UpsertBucket", "Viewer", "CreateRunFiles") if name in query), path))
        if "UpsertBucket" in query:
            return {"data": {"upsertBucket": {"bucket": BUCKET, "inserted": True}}}
        if "CreateRunFiles" in query:
            files = [{"name": one, "uploadUrl": f"{self.address}/up/{one}"} for one in said["variables"]["files"]]
            return {"data": {"createRunFiles": {"runID": "abc", "uploadHeaders": [], "files": files}}}
        return {"data": {"viewer": VIEWER, "serverInfo": {"features": []}}}


@contextmanager
def service() -> Iterator[Service]:
    """One that begins runs until it is told to be silent."""
    one = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if one.silent.is_set():
                one.ended.wait()
            answer = json.dumps(one.answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    one.address = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield one
    finally:
        one.ended.set()
        listening.shutdown()
        listening.server_close()
