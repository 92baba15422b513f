"""Headless Chromium over its debugging pipe: no driver, no package, no port. Source: own (Chrome DevTools Protocol)."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

#: What JavaScript can say in JSON.
Json: TypeAlias = "bool | float | str | list[Json] | dict[str, Json] | None"
Answer = dict[str, Any]  # of the protocol, which has no types

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")


def find_browser() -> str | None:
    """The browser's command, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class Browser:
    """One page in a headless browser.

    Attributes:
        problems: console errors and warnings, uncaught exceptions and log entries so far.
        requests: addresses that the page asked for, ``data:`` ones left out.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._buffer = send, receive, b""
        self._id, self._session = 0, ""
        self.problems: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **params: object) -> Answer:
        """Send a command and wait for its answer."""
        self._id += 1
        message: dict[str, object] = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(60)
            if answer.get("id") == self._id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self, seconds: float) -> Answer:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            if not select.select([self._receive], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser did not answer")
            read = os.read(self._receive, 1 << 20)
            if not read:
                raise RuntimeError("the browser is gone")
            self._buffer += read
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: Answer) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith("data:"):
                self.requests.append(url)
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(str(params["entry"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(str(params["args"]))

    def attach(self) -> None:
        """Open a page and listen to everything."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, file: Path, width: int = 1280, height: int = 900, scheme: str = "light", fragment: str = "") -> None:
        """Load a file, waiting until it has settled."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=file.resolve().as_uri() + fragment)
        for _ in range(200):
            if self.run("document.readyState") == "complete":
                break
            time.sleep(0.05)
        self.run("Promise.all([...document.images].map(i => i.decode().catch(() => 0))).then(() => 1)")

    def run(self, expression: str) -> Json:
        """The value of a JavaScript expression."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            allowUnsafeEvalBlockedByCSP=False,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """A PNG of the page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(command: str, profile: Path) -> Iterator[Browser]:
    """A headless browser that ends with the block."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    arguments = [
        command,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]
    arguments += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
    arguments += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    # The browser reads its commands from descriptor 3 and answers on 4.
    shell = f'exec 8<&{to_read} 9>&{from_write}; exec 3<&8 4>&9 8<&- 9>&-; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *arguments],
        pass_fds=(to_read, from_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    page = Browser(to_write, from_read)
    try:
        page.attach()
        yield page
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(to_write)
        os.close(from_read)
