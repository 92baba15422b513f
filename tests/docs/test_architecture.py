"""``docs/architecture.md`` leads to the code: the four files a newcomer looks for stand there once, and all rooms are named."""

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
#: Paths of the page: in backticks, with a slash.
PATHS = set(re.findall(r"`([\w./-]+/[\w./-]*)`", PAGE))
#: The question a newcomer has -> the file that answers it.
LOOKED_FOR = {
    "computes": "meddiff/metrics/functional/cnr.py",
    "when": "callbacks/evaluation.py",
    "writes": "meddiff/runs/tables.py",
    "draws": "meddiff/reports/page/charts.py",
}


@pytest.mark.parametrize(("question", "path"), LOOKED_FOR.items())
def test_the_four_files_are_named_once_where_they_are_asked_for(question: str, path: str) -> None:
    assert PAGE.count(path) == 1
    line = next(line for line in PAGE.splitlines() if path in line)
    assert f"**{question}**" in line


def test_every_room_of_the_library_stands_in_the_plan() -> None:
    rooms = {folder.parent.name for folder in (ROOT / "meddiff").glob("*/__init__.py")}
    assert {f"meddiff/{room}/" for room in rooms} <= PATHS


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("meddiff/metrics/functional/cnr.py", "def contrast_to_noise_ratio("),
        ("callbacks/evaluation.py", "every_n_images"),
        ("meddiff/runs/tables.py", "def write_table("),
        ("meddiff/reports/page/charts.py", "def tradeoff("),
    ],
)
def test_the_four_files_do_what_the_page_says(path: str, content: str) -> None:
    assert content in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "room", ["meddiff.metrics", "meddiff.metrics.functional", "meddiff.attribution", "meddiff.common"]
)
def test_no_name_of_a_package_hides_its_module(room: str) -> None:
    """``import a.b.c`` would give the function, and the reference would describe one of the two."""
    package = importlib.import_module(room)
    inside = [importlib.import_module(f"{room}.{module.name}") for module in pkgutil.iter_modules(package.__path__)]
    names = [module.__name__.rpartition(".")[2] for module in inside]
    assert names
    assert [name for name in names if not isinstance(getattr(package, name), ModuleType)] == []
