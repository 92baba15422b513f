"""Logged in to W&B, and its server is away, slow, or does not know the key: training goes on, offline."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from callbacks.tracking import INIT_TIMEOUT, RunWandbLogger
from callbacks.wandb_trouble import finish_wandb
from meddiff.cli.doctor import check_wandb
from meddiff.common import wandb_server
from meddiff.common.wandb_server import UNREACHABLE, WRONG_KEY, server_trouble, why_not
from tests.builders.command import PATIENCE, ROOT, write_fit
from tests.builders.wandb_records import everything

KEY = "0" * 40
#: Nobody listens there.
NOWHERE = "http://127.0.0.1:9"


@contextmanager
def server(status: int, answer: object) -> Iterator[str]:
    """One that says the same to every question; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps(answer).encode() if not isinstance(answer, bytes) else answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize(
    ("status", "answer", "trouble"),
    [
        (200, {"data": {"viewer": {"id": "me"}}}, None),
        (200, {"data": {"viewer": None}}, WRONG_KEY),
        (401, {}, WRONG_KEY),
        (403, {}, WRONG_KEY),
        (502, {}, UNREACHABLE),
        (404, {}, None),  # another version of the server: W&B itself shall try
        (200, b"<html>please log in</html>", UNREACHABLE),
    ],
)
def test_what_a_server_says(status: int, answer: object, trouble: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(status, answer) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert server_trouble() == trouble


def test_a_server_that_is_away_or_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (NOWHERE, "http://no-such-host.invalid"):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert server_trouble() == UNREACHABLE
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert server_trouble(patience=0.2) == UNREACHABLE


def test_a_server_that_drips_an_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out of a socket begins anew with every byte, so that a line could take for ever."""
    ended = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.05):
                connection.sendall(b"X-Wait: a\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip, args=(listening,), daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        try:
            assert server_trouble(patience=0.4) == UNREACHABLE
        finally:
            ended.set()


def test_all_waiting_together_is_less_than_ten_seconds() -> None:
    assert wandb_server.PATIENCE + INIT_TIMEOUT < 10.0


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Run initialization has timed out after 5.0 sec.", UNREACHABLE),
        ("Error uploading run: returned error 401: unauthorised", WRONG_KEY),
        (
            "run abc was previously created and deleted; try a new run name",
            "W&B refuses this run (run abc was previously",
        ),
    ],
)
def test_why_a_run_could_not_begin(said: str, told: str) -> None:
    assert why_not(RuntimeError(said)).startswith(told)


def test_an_id_that_cannot_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "a/b c")
    logger = RunWandbLogger(tmp_path / "t" / "time", "name")
    logger.log_metrics({"loss": 0.25}, 1)
    finish_wandb()
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "WANDB_RUN_ID" in line]
    assert "'a/b c'" in told
    assert b"0.25" in everything(tmp_path / "t" / "time")[1], "logged, under an id of its own"


def test_doctor_says_that_it_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    assert check_wandb().text.startswith(f"unreachable: {NOWHERE}")
    with server(401, {}) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert "does not take the API key" in check_wandb().text
    with server(200, {"data": {"viewer": {"id": "me"}}}) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert check_wandb().text == "logged in: runs are sent"


def test_the_key_that_a_login_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {KEY}\n")
    with server(401, {}) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert server_trouble() == WRONG_KEY
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        assert server_trouble() is None, "without a key of ours, W&B itself shall try"


def child_environment(address: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("WANDB_MODE", "WANDB_SERVICE")}
    return {**kept, "PYTHONPATH": str(ROOT), "WANDB_BASE_URL": address, "WANDB_API_KEY": KEY}


def test_a_fit_without_a_network_trains_offline(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    config = write_fit(tmp_path / "fit.yaml", shards, vae_folder, {"max_steps": 1})
    fit = subprocess.run(
        [sys.executable, "-m", "meddiff", "fit", "-c", str(config)],
        cwd=tmp_path,
        env=child_environment(NOWHERE),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert fit.returncode == 0, fit.stderr
    assert [line for line in fit.stdout.splitlines() if "W&B" in line] == [UNREACHABLE]
    assert "Traceback" not in fit.stderr
    (run,) = (tmp_path / "runs" / "t").iterdir()
    assert b"train/loss" in everything(run)[1]


#: A logger that was told to be online, in a process of its own: W&B keeps the first server it has seen.
ONLINE = """
import sys
from pathlib import Path
from callbacks.tracking import RunWandbLogger
logger = RunWandbLogger(sys.argv[1], "name", offline=False)
logger.log_metrics({"loss": 0.25}, 1)
logger.experiment.finish()
"""


def test_a_server_that_refuses_the_run_when_it_begins(tmp_path: Path) -> None:
    """It had answered before, or nobody had asked it."""
    with server(401, {"error": "unauthorised"}) as address:
        begun = subprocess.run(
            [sys.executable, "-c", ONLINE, str(tmp_path)],
            cwd=tmp_path,
            env=child_environment(address),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert begun.returncode == 0, begun.stderr
    assert begun.stdout.count("this run stays offline") == 1
    assert b"0.25" in everything(tmp_path)[1]
