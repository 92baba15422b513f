"""Bars in a terminal of any width, plain lines in a file, and nothing that stands still."""

import os
import re
import struct
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import TextIO

import pytest

from meddiff.common import progress
from meddiff.common.progress import doing, progress_bar, say

#: Nothing is sent behind it.
END = "THE END"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence counts after hundredths of a second."""
    monkeypatch.setattr(progress, "FILE", 0.04)
    monkeypatch.setattr(progress, "LOOK", 0.01)


def lines_until(file: Path, number: int) -> list[str]:
    """The lines of a file as soon as there are so many."""
    until = time.monotonic() + 20.0
    while len(found := file.read_text().splitlines()) < number and time.monotonic() < until:
        time.sleep(0.01)
    return found


def in_a_terminal(rows: int, columns: int, work: Callable[[TextIO], None]) -> str:
    """What a terminal of this size is sent."""
    reader, writer = os.openpty()
    ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        work(stream)
        print(END, file=stream, flush=True)
        found = b""
        while END.encode() not in found:
            found += os.read(reader, 2**16)
    os.close(reader)
    return found.decode().partition(END)[0]


def test_a_file_gets_plain_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream, progress_bar(40, "pass", "grounding", stream=stream) as bar:
        for _ in range(40):
            bar.update()
    text = (tmp_path / "log").read_text()
    assert "\r" not in text
    assert "\x1b" not in text
    assert re.fullmatch(r"grounding: 100% 40/40 \[.*pass/s\]\n", text), "short work has one line"


def test_a_file_hears_of_work_that_says_nothing(quick: None, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream, progress_bar(2, "pass", "grounding", stream=stream) as bar:
        told = lines_until(tmp_path / "log", 2)  # nothing is updated meanwhile
        bar.update(2)
    assert len(told) >= 2
    assert all(line.startswith("grounding:   0% 0/2 [") for line in told)
    assert (tmp_path / "log").read_text().splitlines()[-1].startswith("grounding: 100% 2/2 [")


def test_lines_of_a_long_run_become_fewer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream, progress_bar(1000, "img", "train", stream=stream) as bar:
        seconds = []
        for hours in (0.01, 1.0, 24.0):
            bar.start_t = time.time() - 3600 * hours
            bar.n += 1
            bar.refresh()
            seconds.append(bar.mininterval)
    assert seconds[0] == progress.FILE
    assert progress.FILE < seconds[1] < progress.MOST
    assert seconds[2] == progress.MOST


@pytest.mark.parametrize(("rows", "columns", "width"), [(0, 0, progress.WIDTH), (40, 60, 60)])
def test_a_terminal_that_does_not_say_how_wide_it_is_has_bars_too(rows: int, columns: int, width: int) -> None:
    def work(stream: TextIO) -> None:
        with progress_bar(4, "pass", "grounding", stream=stream) as bar:
            bar.update(4)

    shown = [part for part in in_a_terminal(rows, columns, work).split("\r") if part.strip()]
    assert "4/4" in shown[-1]
    assert "█" in shown[-1]
    assert max(map(len, shown)) <= width + 1


def test_a_bar_that_stands_still_in_a_terminal_has_a_clock_that_moves(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(stream: TextIO) -> None:
        with progress_bar(4, "pass", "grounding", stream=stream) as bar:
            began = bar._spoke
            until = time.monotonic() + 20.0
            while bar._spoke == began and time.monotonic() < until:
                time.sleep(0.02)

    assert in_a_terminal(40, 100, work).count("grounding") >= 2


def test_what_cannot_say_how_far_it_is(quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with doing("reading weights"):
            assert file.read_text() == "reading weights\n", "said before it is done"
            told = lines_until(file, 3)
        with doing("writing nothing", shown=False):
            pass
    assert told[0] == "reading weights"
    assert all(re.fullmatch(r"reading weights \[\d\d:\d\d\]", line) for line in told[1:])
    assert "nothing" not in file.read_text()


def test_a_line_stands_alone_beside_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(4, "pass", "grounding", stream=sys.stdout) as bar:
        bar.update()
        say("W&B gave up")
        bar.update(3)
    assert "W&B gave up" in capsys.readouterr().out.splitlines()


def test_the_thread_ends_with_the_last_bar(quick: None, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream, progress_bar(4, "pass", "x", stream=stream):
        assert progress._thread
        (thread,) = progress._thread
    thread.join(20.0)
    assert not thread.is_alive()


def test_nothing_is_shown_of_what_is_there_already(capsys: pytest.CaptureFixture[str]) -> None:
    for shown, done in ((False, 0), (True, 4)):
        with progress_bar(4, "pass", "grounding", shown, done) as bar:
            bar.update()
    assert capsys.readouterr() == ("", "")
