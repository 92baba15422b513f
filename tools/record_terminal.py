"""Run a command in a real terminal (tmux), or with its output in a file, and say how long nothing moved.

    python tools/record_terminal.py lightning fit -c configs/quickstart.yaml             # in tmux, 110 columns
    python tools/record_terminal.py --file lightning fit -c configs/quickstart.yaml

Prints the longest stretches without a change, with what stood last, and keeps what was seen in ``recording.txt``. A busy
machine makes them longer: measure on quiet cores.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds between two looks.
LOOK = 0.25
END = "ended with exit code"


def tmux(server: str, *arguments: str) -> str:
    """The output of one tmux command on a server of its own."""
    return subprocess.run(["tmux", "-L", server, *arguments], capture_output=True, text=True, check=False).stdout


def in_terminal(command: str) -> Callable[[], str]:
    """Start the command in tmux; the function returned is what stands on the screen."""
    server = f"record-{time.time_ns()}"
    shown = f"{command}; echo {END} $?; sleep 86400"
    tmux(server, "new-session", "-d", "-s", "r", "-x", "110", "-y", "40", shown)

    def look() -> str:
        # with all that has left the screen, once the command is at its end
        screen = tmux(server, "capture-pane", "-p", "-t", "r").rstrip()
        if END in screen:
            screen = tmux(server, "capture-pane", "-p", "-S", "-5000", "-t", "r").rstrip()
            tmux(server, "kill-server")
        return screen

    return look


def in_file(command: str) -> Callable[[], str]:
    """Start the command with its output in a file; the function returned is what stands in it."""
    file = Path(tempfile.mkdtemp()) / "output.txt"
    shown = f"({command}; echo {END} $?) > {shlex.quote(str(file))} 2>&1"
    subprocess.Popen(["sh", "-c", shown], stdin=subprocess.DEVNULL)
    return lambda: file.read_text(errors="replace").rstrip() if file.exists() else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", action="store_true", help="output in a file, and no terminal")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    begun = changed = time.monotonic()
    command = shlex.join(options.command)
    look = in_file(command) if options.file else in_terminal(command)
    last, still = "", []
    while END not in last:
        time.sleep(LOOK)
        seen, now = look(), time.monotonic()
        if seen != last:
            still.append((now - changed, changed - begun, (last.splitlines() or [""])[-1].strip()))
            last, changed = seen, now
    Path("recording.txt").write_text(last + "\n")
    print(f"{changed - begun:.0f} s, {len(still):,} changes; nothing moved for")
    for seconds, at, line in sorted(still, reverse=True)[:5]:
        print(f"  {seconds:4.1f} s  after {at:5.1f} s  {line[:90]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
