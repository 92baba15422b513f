"""``lightning report`` as a user types it."""

import pytest

from meddiff.cli.main import main
from tests.builders.run_folders import make_run


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["report", *arguments])
    return int(stopped.value.code or 0)


def test_writes_the_page_and_names_it(tmp_path, capsys):
    run = make_run(tmp_path / "quick" / "t", evaluations=2, overlays=1, samples=1)
    assert call(str(run)) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    out = tmp_path / "new" / "both.html"
    assert call(str(run), str(run), "--out", str(out)) == 0
    assert "<!doctype html>" in out.read_text()


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], []])
def test_bad_input_is_one_line(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error


def test_help_lists_it(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "one HTML page about one or several runs" in capsys.readouterr().out
