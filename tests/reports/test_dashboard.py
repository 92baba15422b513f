"""The dashboard over a real socket: who is let in, what is known, and what two clients see when runs come, grow and go."""

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.reports.dashboard.app import Answer
from meddiff.reports.dashboard.serve import listen
from meddiff.reports.dashboard.watched import Watched
from meddiff.runs import names
from tests.builders.dashboards import SECRET, Client, served
from tests.builders.run_folders import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched") / "runs"
    make_run(folder / "frozen" / "one")
    (folder / "secret.txt").write_text("nobody may read this")
    (folder.parent / "above.txt").write_text("nor this")
    return folder


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[Client]:
    with served(Watched(runs)) as client:
        yield client.log_in()


def stranger(client: Client, **headers: str) -> Client:
    return Client(client.port, "", headers)


def test_the_printed_address_lets_in_and_nothing_else_does(client: Client) -> None:
    status, headers, _ = stranger(client).ask(f"/?token={SECRET}")
    cookie = headers["set-cookie"].lower()
    assert status == 200
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert headers["refresh"] == "0; url=/"
    for other in (
        stranger(client),
        Client(client.port, f"meddiff-{client.port}=other"),
        Client(client.port, "x=\x7f;="),
    ):
        for path in ("/", "/?data", "/events", "/frozen/one/report.html", "/?token=wrong", "/?token="):
            assert other.ask(path)[0] == 403, path
    assert client.ask("/")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]", "localhost.evil", "10.0.0.1"]
)
def test_another_name_for_this_machine_is_not_answered(client: Client, host: str) -> None:
    assert client.ask("/", Host=host)[0] == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_names_of_this_machine_are(client: Client, host: str) -> None:
    for port in ("", f":{client.port}"):
        assert client.ask("/", Host=host + port)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_it_is_only_read(client: Client, method: str) -> None:
    for path in ("/", "/events", "/try", "/frozen/one/report.html"):
        assert client.ask(path, method, b"")[0] == 405
    assert client.ask("/", "HEAD")[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_other_sites_get_nothing_though_the_browser_would_send_the_cookie(client: Client, site: str) -> None:
    assert client.ask("/?data", Sec_Fetch_Site=site)[0] == 403
    for own in ("same-origin", "none"):
        assert client.ask("/?data", Sec_Fetch_Site=own)[0] == 200


def test_every_answer_forbids_frames_caches_and_guesses(client: Client) -> None:
    for one, path in ((client, "/"), (client, "/?data"), (client, "/nothing"), (stranger(client), "/")):
        headers = one.ask(path)[1]
        assert headers["content-security-policy"] == "frame-ancestors 'none'"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt", "/../above.txt", "/..%2fabove.txt", "/%2e%2e/above.txt", "/frozen/../secret.txt", "//etc/passwd",
        "/%2fetc%2fpasswd", "/frozen/one/%00", "/%00", "/frozen/one/config.yaml", "/frozen/one/metrics.jsonl", "/frozen/one/",
        "/frozen/one/media/attention/000000000.json", "/try", "/static/page.js", "/frozen/one/report.html%00", "/%ff%fe",
        "/frozen/one/report.html/", "/./frozen/one/report.html", "/FROZEN/one/report.html",
    ],
)  # fmt: skip
def test_only_known_addresses_are_answered(client: Client, path: str) -> None:
    status, _, text = client.ask(path)
    assert status == 404
    assert "nobody" not in text
    assert "nor this" not in text


def test_the_page_of_a_run_and_its_data(client: Client) -> None:
    whole, single = client.ask("/")[2], client.ask("/frozen/one/report.html")[2]
    assert "frozen" in whole
    assert "EventSource" in single
    data = json.loads(client.ask("/frozen/one/report.html?data")[2])
    assert len(data["evaluations"]["images"]) > 1
    assert data == json.loads(client.ask("/?data")[2]), "it is the only run"


class Listener:
    """Counts the events that a client hears."""

    def __init__(self, client: Client) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
        self.connection.request("GET", "/events", headers={"Cookie": client.cookie})
        self.answer = self.connection.getresponse()
        assert self.answer.getheader("content-type", "").startswith("text/event-stream")
        self.heard = 0
        self.news = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for line in self.answer:
                if line.strip() == b"event: changed":
                    with self.news:
                        self.heard += 1
                        self.news.notify_all()
        except (OSError, ValueError):
            pass

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for news until they are the wanted ones."""
        while True:
            heard = self.heard
            if condition():
                return
            with self.news:
                assert self.news.wait_for(lambda heard=heard: self.heard > heard, 60), "nothing was told"


def seen(client: Client, column: str = "run") -> list[object]:
    text = client.ask("/?data")[2]
    return list(json.loads(text)["evaluations"].get(column, []))


def test_two_clients_see_a_run_come_grow_and_go(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    with served(Watched(folder)) as first:
        second = Client(first.log_in().port).log_in()
        listeners = [Listener(first), Listener(second)]
        assert "no run in" in first.ask("/")[2].lower()
        made = make_run(folder / "frozen" / "one", evaluations=2)
        for client, listener in zip((first, second), listeners, strict=True):
            listener.until(lambda client=client: len(set(seen(client))) == 1)
        before, table = len(seen(first)), made / names.TRADEOFF
        head = table.read_text().splitlines()[0].split(",")
        row = {"step": "9000", "images": "144000", "grounding/macro_cnr": "1.5"}
        with table.open("a") as stream:
            stream.write(",".join(row.get(name, "") for name in head) + "\n")
        for client, listener in zip((first, second), listeners, strict=True):
            listener.until(lambda client=client: 144000 in seen(client, "images"))
        assert len(seen(first)) == before + 1
        make_run(folder / "learnable" / "two", evaluations=2)
        listeners[1].until(lambda: len(set(seen(first))) == 2)
        assert "learnable" in first.ask("/")[2]
        assert second.ask("/learnable/two/report.html")[0] == 200
        shutil.rmtree(folder / "learnable")
        listeners[0].until(lambda: len(set(seen(first))) == 1)
        assert second.ask("/learnable/two/report.html")[0] == 404
        assert second.ask("/frozen/one/report.html")[0] == 200
    # leaving the block asserts that the two open streams did not hold the server


def test_links_out_of_the_watched_folder_are_not_followed(tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere" / "one")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert Watched(tmp_path / "runs").runs() == []
    assert len(Watched(tmp_path / "elsewhere").runs()) == 1, "the control"


def test_runs_of_one_name_keep_their_addresses_when_others_come(tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "one", name="same")
    watched = Watched(tmp_path)
    assert [run.name for run in watched.runs()] == ["same"]
    make_run(tmp_path / "a" / "two", name="same")
    assert watched.scan()
    assert [run.name for run in watched.runs()] == ["same one", "same two"]
    shutil.rmtree(tmp_path / "a" / "two")
    assert watched.scan()
    assert [run.name for run in watched.runs()] == ["same"]
    assert not watched.scan()


def test_what_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "one")
    make_run(tmp_path / "b" / "two")
    watched = Watched(tmp_path)
    before = watched.runs()
    (tmp_path / "b" / "two" / names.CONTROLS).unlink()
    watched.scan()
    after = watched.runs()
    assert after[0] is before[0]
    assert after[1] is not before[1]


class Echo:
    """Answers as a model does, at once."""

    names: Sequence[str] = ("<b>model</b>",)

    def __call__(self, picture: bytes, phrase: str) -> list[Answer]:
        if not phrase:
            raise UserError("There is no word.")
        return [{"model": f"{len(picture)}", "phrase": phrase, "words": [], "absent": []}]


def test_a_model_is_asked_by_its_own_page_only(runs: Path) -> None:
    with served(Watched(runs), Echo()) as client:
        client.log_in()
        assert "&lt;b&gt;model&lt;/b&gt;" in client.ask("/try")[2]
        status, _, text = client.ask("/try?phrase=A%20b", "POST", b"12345", Sec_Fetch_Site="same-origin")
        assert status == 200
        assert json.loads(text) == [{"model": "5", "phrase": "A b", "words": [], "absent": []}]
        assert client.ask("/try", "POST", b"1")[0] == 422
        assert client.ask("/try?phrase=a", "POST", b"1", Sec_Fetch_Site="none")[0] == 403
        assert client.ask("/try?phrase=a", "POST", b"1", Sec_Fetch_Site="cross-site")[0] == 403
        assert stranger(client).ask("/try?phrase=a", "POST", b"1")[0] == 403
        assert client.ask("/try?phrase=a", "POST", b"1", Content_Length=str(10**6), Host="evil.example")[0] == 400


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_it_is_served_on_this_machine_only(host: str) -> None:
    with pytest.raises(UserError, match="not served on"):
        listen(host, 0)


def test_a_taken_port_is_said_and_the_default_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at port {port}"):
            listen("127.0.0.1", port)
        monkeypatch.setattr("meddiff.reports.dashboard.serve.PORT", port)
        with listen("127.0.0.1", None) as bound:
            assert bound.getsockname()[1] != port
    with pytest.raises(UserError, match="cannot listen at port 70000"):
        listen("127.0.0.1", 70000)
