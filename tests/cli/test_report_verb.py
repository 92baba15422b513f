"""``lightning report`` as a user types it."""

import pytest

from tests.builders.command import call
from tests.builders.run_folders import make_run


def test_writes_the_page_and_names_it(tmp_path, capsys):
    run = make_run(tmp_path / "quick" / "t", evaluations=2, overlays=1, samples=1)
    assert call(capsys, "report", str(run))[:2] == (0, f"{run / 'report.html'}\n")
    out = tmp_path / "new" / "both.html"
    assert call(capsys, "report", str(run), str(run), "--out", str(out))[0] == 0
    assert "<!doctype html>" in out.read_text()


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], []])
def test_bad_input_is_one_line(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, "report", *arguments)
    error = err.strip()
    assert code == 2
    assert error.startswith("error: ")
    assert "\n" not in error


def test_help_lists_it(capsys):
    assert "one HTML page about one or several runs" in call(capsys, "--help")[1]
