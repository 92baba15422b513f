"""Serving the dashboard on this machine alone. Source: own."""

import secrets
import socket

import uvicorn

from meddiff.common.errors import UserError
from meddiff.reports.dashboard.app import Asked, dashboard
from meddiff.reports.dashboard.guard import TOKEN
from meddiff.reports.dashboard.watched import Watched

LOOPBACK = {"127.0.0.1": socket.AF_INET, "localhost": socket.AF_INET, "::1": socket.AF_INET6}
PORT = 8765
#: Ports that are tried after a taken one.
TRIES = 20


def listen(host: str, port: int | None) -> socket.socket:
    """A bound socket.

    Args:
        host: a name of this machine on itself.
        port: None takes the first free one from :data:`PORT`; 0 any.

    Raises:
        UserError: another host, or the port is taken.
    """
    if host not in LOOPBACK:
        raise UserError(
            f"The dashboard is not served on {host}: patients' pictures stay on this machine ({', '.join(LOOPBACK)}); from "
            f"elsewhere, reach it through `ssh -L {PORT}:localhost:{PORT} THIS_MACHINE`."
        )
    for candidate in range(PORT, PORT + TRIES) if port is None else [port]:
        bound = socket.socket(LOOPBACK[host])
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, candidate))
            bound.listen(128)  # who opens the address at once waits for the server, and is not refused
        except (OSError, OverflowError) as error:
            bound.close()
            problem = getattr(error, "strerror", None) or str(error)
        else:
            return bound
    raise UserError(f"The dashboard cannot listen at port {candidate} of {host} ({problem}): name another with --port.")


def server(watched: Watched, port: int, token: str, asked: Asked | None = None) -> uvicorn.Server:
    """What :func:`serve` runs.

    Args:
        port: of the socket that it will be given.
        token: what a browser must know.
        asked: models of the page on which one asks.
    """
    app = dashboard(watched, token, port, asked)
    return _Server(uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=2, ws="none"))


class _Server(uvicorn.Server):
    """Ends the streams of events before it waits for its connections, of which they would be the last."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.config.app.state.news.end()  # type: ignore[union-attr]  # it is a Starlette
        await super().shutdown(sockets)


def serve(watched: Watched, bound: socket.socket, asked: Asked | None = None) -> None:
    """Print the address and serve until SIGINT or SIGTERM.

    Args:
        bound: as :func:`listen` made it.
        asked: models of the page on which one asks.
    """
    host, port = bound.getsockname()[:2]
    token = secrets.token_urlsafe(24)
    name = f"[{host}]" if ":" in host else host
    print(f"dashboard: http://{name}:{port}/?{TOKEN}={token}\nCtrl-C ends it.", flush=True)
    server(watched, port, token, asked).run([bound])
