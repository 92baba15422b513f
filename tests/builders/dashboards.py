"""A dashboard that is really served, and a client that sends what no browser would."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from meddiff.reports.dashboard.app import Asked
from meddiff.reports.dashboard.serve import listen, server
from meddiff.reports.dashboard.watched import Watched

SECRET = "the-token"


@dataclass
class Client:
    """Asks a dashboard.

    Attributes:
        cookie: sent with every request, "" for none.
    """

    port: int
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers (lower case) and text of the answer; the path goes over the wire as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Host": f"127.0.0.1:{self.port}", **({"Cookie": self.cookie} if self.cookie else {}), **self.headers}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in (sent | ({"Content-Length": str(len(body))} if body is not None else {})).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text

    def log_in(self, token: str = SECRET) -> "Client":
        """Open the printed address once."""
        _, headers, _ = self.ask(f"/?token={token}")
        self.cookie = headers.get("set-cookie", "").partition(";")[0]
        return self


@contextmanager
def served(watched: Watched, asked: Asked | None = None) -> Iterator[Client]:
    """A client of a dashboard that runs in a thread of this process."""
    bound = listen("127.0.0.1", 0)
    port = bound.getsockname()[1]
    running = server(watched, port, SECRET, asked)
    thread = threading.Thread(target=running.run, args=([bound],))
    thread.start()
    try:
        while not running.started:
            thread.join(0.02)
            assert thread.is_alive()
        yield Client(port)
    finally:
        running.should_exit = True
        thread.join(20)
        bound.close()
        assert not thread.is_alive(), "open streams must not hold the server"
