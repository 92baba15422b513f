"""Any value of any option of any verb: the command ends with a sentence or its result, and nothing else.

Runs and files that the options name are none, or look whole and hold no weights, so that nothing long is ever begun.
"""

import re
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meddiff.cli import known_options
from meddiff.cli.main import OWN_VERBS, main
from meddiff.common.files import PART
from tests.builders.doors import fuzz, quiet
from tests.builders.hostile import hostile
from tests.builders.run_folders import make_run

#: Examples in CI, and in the slow run; with those of ``test_fuzz`` more than 3,000.
FEW, MANY = 24, 600
#: A hang, in seconds; reading torch takes ten on a busy machine.
HANG = 60
FLAG = re.compile(r"^  (--[\w.-]+)", re.MULTILINE)
#: ``--device`` of the verbs is asked of torch, ``--out`` of a preparation would let it begin.
LEFT_OUT = {"--device", "--help"}
VALUES = st.one_of(
    st.sampled_from(
        ["0", "-1", "nan", "inf", "1e400", "9" * 500, "null", "[]", "{}", "{a: 1}", "[1, 2", "true", "1.5", "--", "-",
         "${oc.env:X}", "&a [*a]", "1,2,,3", "!!python/object:os.system", "a" * 5000, "[" * 200]
    ),
    st.integers().map(str),
    st.floats().map(str),
    hostile("run", "run/config.yaml", "run/metrics.jsonl"),
)  # fmt: skip


def commands() -> dict[str, tuple[list[str], list[str]]]:
    """Verb and part -> the arguments that it needs, and its options, as its help lists them."""
    needed = {
        "sample": ["--ckpt", "run", "--prompts", "Edema."],
        "explain": ["--run", "run"],
        "export": ["--run", "run", "--out", "out"],
        "tables": ["run"],
        "report": ["run", "--out", "r.html"],
        "sweep": ["missing.yaml"],
        "dashboard": ["missing"],
        "dashboard_push": ["push", "--runs", "missing"],
        "doctor": ["--plan", "missing.yaml"],
    }
    found: dict[str, tuple[list[str], list[str]]] = {}
    for file in sorted(known_options.TEXTS.glob("*.txt")):
        verb, _, part = file.stem.partition("_")
        flags = [one for one in FLAG.findall(file.read_text(encoding="utf-8")) if one not in LEFT_OUT]
        if verb == "prepare":
            found[file.stem] = ([verb, part, "--out", "file"], [one for one in flags if one != "--out"])
        else:
            found[file.stem] = (
                ([verb, part, "--run", "run"] if verb == "evaluate" else [verb, *needed[file.stem]]),
                flags,
            )
    return found


COMMANDS = commands()


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command line with one to three options, each with some value."""
    needed, flags = COMMANDS[draw(st.sampled_from(sorted(COMMANDS)))]
    given_ = draw(st.lists(st.sampled_from(flags), min_size=1, max_size=3))
    return [*needed, *(f"{flag}={draw(VALUES)}" for flag in given_)]


class Hang(BaseException):
    """No door takes it for something that a user can mend."""


def late(*_: object) -> None:
    raise Hang


def one_command(line: list[str], capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    signal.signal(signal.SIGALRM, late)
    signal.alarm(HANG)
    try:
        with pytest.raises(SystemExit) as end:
            main(line)
    finally:
        signal.alarm(0)
    said = capsys.readouterr()
    code = end.value.code or 0
    assert code in (0, 2), (line, said.err[-400:])
    assert "Traceback" not in said.err + said.out, line
    assert quiet(said.err.replace("\r", "")), line
    assert code == 0 or "error: " in said.err, line
    assert not list(folder.rglob(f"*{PART}")), line


def every_verb(examples: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(folder / "run", evaluations=2, overlays=1, samples=1, size=16)
    (folder / "file").write_text("x")
    fuzz(examples)(given(lines())(lambda line: one_command(line, capsys, folder)))()
    # KiB on Linux, bytes elsewhere: so 4 GiB at least
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20 * (1 if Path("/proc").exists() else 1024)


def test_every_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    every_verb(FEW, tmp_path, capsys)


@pytest.mark.slow
def test_every_verb_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    every_verb(MANY, tmp_path, capsys)


def test_every_verb_is_asked() -> None:
    """The control: no verb is left out, and each has options."""
    assert {one.partition("_")[0] for one in COMMANDS} == set(OWN_VERBS)
    assert all(len(flags) > 1 for _, flags in COMMANDS.values())
