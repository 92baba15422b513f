"""Every kind of bad input of the table in ``docs/bad_inputs.md`` ends as the table says: one sentence, or a page without it."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meddiff.cli.main import main
from tests.builders.bad_inputs import Bad, Place, make_place, read_batch
from tests.conftest import restored_environment
from tests.fuzz.cases import CASES

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "bad_inputs.md"
#: Of the issue: longer is a hang. Nothing here takes more than some seconds, whatever else the machine does.
HANG_S = 20
#: One of so many runs in CI, all in the slow run.
EVERY = 16


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path, shards: Path) -> Place:
    return make_place(tmp_path_factory.mktemp("whole") / "place", vae_folder, shards)


@pytest.fixture
def place(whole: Place, tmp_path: Path) -> Iterator[Place]:
    """A copy that may be spoilt."""
    copy = Place(tmp_path / "place")
    shutil.copytree(whole.folder, copy.folder)
    for file in (copy.config, copy.sweep):
        file.write_text(file.read_text().replace(str(whole.folder), str(copy.folder)))
    here = os.getcwd()
    os.chdir(copy.folder)
    with restored_environment():
        yield copy
    os.chdir(here)


def ending(case: Bad, place: Place, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and what was said on stderr."""
    import io

    case.spoil(place)
    capsys.readouterr()
    if case.command == "(a batch of the training split)":
        said = io.StringIO()
        return read_batch(place, said), said.getvalue()
    words = case.command if isinstance(case.command, tuple) else case.command.split(" ")
    with pytest.raises(SystemExit) as stopped:
        main([place.named(word) for word in words])
    return int(stopped.value.code or 0), capsys.readouterr().err


def check(case: Bad, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    before = time.monotonic()
    code, err = ending(case, place, capsys)
    assert time.monotonic() - before < HANG_S
    assert code == case.code, err
    assert "Traceback" not in err
    assert [line for line in err.splitlines() if line.startswith("error: ")][1:] == []
    assert (code == 0) == ("error: " not in err)
    assert not list(place.folder.rglob("*.part"))  # no half-written file


@pytest.mark.parametrize("case", CASES[::EVERY], ids=lambda case: f"{case.door}-{case.what:.50}")
def test_one_of_many(case: Bad, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    check(case, place, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.door}-{case.what:.50}")
def test_all(case: Bad, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    check(case, place, capsys)


def test_the_check_sees_a_whole_input(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The control: what nobody spoilt is read, so that a case's refusal is of what the case spoilt."""
    assert ending(Bad("run", "whole", "report {run}", lambda place: None), place, capsys)[0] == 0
    assert ending(Bad("sample", "whole", "(a batch of the training split)", lambda place: None), place, capsys)[0] == 0
    printed = Bad("config", "whole", "fit -c {config} --print_config", lambda place: None)
    assert ending(printed, place, capsys)[0] == 0


def test_the_table_lists_these_kinds_and_no_others() -> None:
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if re.match(r"\| (?!kind|-)", line)]
    listed = {line.removeprefix("| ").partition(" | ")[0] for line in rows}
    from tools.bad_inputs_table import kind_of

    assert listed == {kind_of(case) for case in CASES}
