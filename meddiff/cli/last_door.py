"""What nobody foresaw, told at the last door of the command: a sentence on the terminal, never a page of Python.

- What others raise (the system, Lightning, torch, a reader of files, a worker that died) is told in its own last sentence, and
  the exit code is 2, as of everything that a user can mend.
- Anything else is a fault of this suite: a line says what and where, a report lies in a file, and the exit code is 70
  (``EX_SOFTWARE`` of sysexits.h).

``--traceback``, anywhere behind the verb, prints Python's own traceback as well. Source: own.
"""

import contextlib
import errno
import os
import platform
import select
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from meddiff.common.files import atomic_open, no_room
from meddiff.common.outside import shell, terminal

FLAG = "--traceback"
#: For the processes that a training starts: they get the arguments without the flag.
VARIABLE = "MEDDIFF_TRACEBACK"
MENDABLE, FAULT = 2, 70
#: As of a tool that the system ends when nobody reads its output (128 + SIGPIPE); nothing is said then, either.
UNREAD = 141
#: Folders of this suite's code.
HOUSE = ("meddiff", "lightning_modules", "datamodules", "callbacks")
#: What Python raises for a mistake in a program, whoever's frame it is: a library was asked for what it does not have.
MISTAKES = (TypeError, AttributeError, NameError, LookupError, AssertionError, ArithmeticError, NotImplementedError)
#: Distributions whose versions stand in a report.
TOLD = (
    "torch",
    "lightning",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "webdataset",
    "jsonargparse",
    "wandb",
    "numpy",
)


def without_flag(arguments: Sequence[str]) -> list[str]:
    """The arguments but for ``--traceback``, which is remembered for this process and its children."""
    if FLAG in arguments:
        os.environ[VARIABLE] = "1"
    return [one for one in arguments if one != FLAG]


def last_door(error: Exception, arguments: Sequence[str]) -> int:
    """Tell of an error that nobody foresaw; returns the exit code.

    Args:
        arguments: of the command, for the report.
    """
    if os.environ.get(VARIABLE):
        visible_traceback(type(error), error, error.__traceback__)
    if isinstance(error, BrokenPipeError) and error.filename is None and nobody_reads():
        _leave_the_pipe()
        return UNREAD
    if is_foreign(error):
        return _say(sentence(error), MENDABLE)
    where = place(error)
    told = f"a fault of this suite ({type(error).__name__} at {where}): {sentence(error)}"
    report = write_report(error, arguments)
    kept = f"; what is needed to mend it is in {report}" if report is not None else ""
    return _say(f"{told}{kept}", FAULT)


def is_foreign(error: BaseException) -> bool:
    """Whether somebody else's code said no to something, rather than this suite's code going wrong.

    Example:
        >>> is_foreign(OSError(5, "Input/output error")), is_foreign(KeyError("x"))
        (True, False)
    """
    if isinstance(error, OSError | MemoryError):
        return True
    if type(error).__module__.partition(".")[0] not in ("builtins", *HOUSE):
        return True
    return not isinstance(error, MISTAKES) and not raised_here(error)


def raised_here(error: BaseException) -> bool:
    """Whether code of this suite raised it, and no library's."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _room(frames[-1].filename) in HOUSE


def sentence(error: BaseException) -> str:
    """What an error says, in one line: the last one, for workers and ranks put whole tracebacks before it.

    Example:
        >>> sentence(FileNotFoundError(2, "No such file or directory", "a.yaml"))
        'a.yaml: No such file or directory'
        >>> sentence(RuntimeError("Caught in a worker:\\n  File x\\nRuntimeError: it is broken"))
        'RuntimeError: it is broken'
    """
    if isinstance(error, OSError) and error.strerror:
        if (told := _of_the_system(error)) is not None:
            return told
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def place(error: BaseException) -> str:
    """``module.py:line`` of the innermost frame of this suite; of all where it has none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _room(frame.filename) in HOUSE]
    chosen = (own or frames)[-1:]
    return f"{Path(chosen[0].filename).name}:{chosen[0].lineno}" if chosen else "an unknown place"


def write_report(error: BaseException, arguments: Sequence[str]) -> Path | None:
    """Traceback, versions and command into a file of the run folder, or of the system's folder for such; None where it cannot.

    Messages of errors may quote a key or a text of a cohort, so they stay on the terminal: the report has kinds and places.
    """
    from importlib import metadata

    from meddiff.runs.new_run import RUN_DIR_VARIABLE

    lines = [
        f"command: lightning {' '.join(map(shell, arguments))}",
        f"python {platform.python_version()}, {sys.platform}",
    ]
    for name in TOLD:
        with contextlib.suppress(metadata.PackageNotFoundError):
            lines.append(f"{name} {metadata.version(name)}")
    for one in _chain(error):
        lines += ["", type(one).__name__, *(line.rstrip() for line in traceback.format_tb(one.__traceback__))]
    given = os.environ.get(RUN_DIR_VARIABLE)
    for folder in [*([Path(given)] if given else []), Path(tempfile.gettempdir())]:
        file = folder / f"fault-{os.getpid()}.txt"
        try:
            with atomic_open(file, "w") as stream:
                stream.write(terminal("\n".join(lines) + "\n", newlines=True))
        except OSError:
            continue
        return file
    return None


def visible_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python prints of an error, with the controls of the names in it spelled out."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(terminal(text, newlines=True), end="", file=sys.stderr)


def _say(told: str, code: int) -> int:
    print(f"error: {terminal(told)}", file=sys.stderr)
    return code


def nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader is gone, as ``head`` is when it has its lines; a pipe may break elsewhere, too."""
    try:
        asked = select.poll()
        asked.register(sys.stdout.fileno(), 0)
        return any(state & select.POLLERR for _, state in asked.poll(0))
    except (OSError, ValueError, AttributeError):  # no file, closed, or a system without poll
        return True


def _leave_the_pipe() -> None:
    """Python flushes the output once more as it ends, and would tell of the closed pipe again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and what it was raised from."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


_ROOT = Path(__file__).resolve().parents[2]


def _room(file: str) -> str:
    """The room of a file of this suite; "" of another's."""
    path = Path(file)
    with contextlib.suppress(ValueError, OSError):
        return path.resolve().relative_to(_ROOT).parts[0]
    return ""


def _of_the_system(error: OSError) -> str | None:
    """The sentence for what can happen in a hundred places; None for another error."""
    found = no_room(error)
    if found is not None:
        return str(found)
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{error.filename} cannot be a path here ({error.strerror})"
    return None
