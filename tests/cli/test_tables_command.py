"""``lightning tables`` as a user types it."""

import csv

import pytest

from meddiff.cli.tables import main
from meddiff.common.errors import UserError
from tests.builders.evaluation_folders import make_evaluation


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for side in ("frozen", "learnable"):
        make_evaluation(folder / side / "t", side)
    return [str(folder / side / "t") for side in ("frozen", "learnable")]


def test_prints_the_tables_that_were_asked_for(pair, capsys):
    assert main([*pair, "--tables", "1", "3", "2"]) == 0
    out = capsys.readouterr().out
    assert out.index("Table 1:") < out.index("Table 3:") < out.index("Table 2 needs MS-COCO")
    assert "Table 4" not in out
    assert "frozen - learnable" in out


@pytest.mark.parametrize(
    ("style", "sign"), [("markdown", "| ---"), ("csv", "pieces,class,rank"), ("latex", r"\toprule")]
)
def test_formats(pair, capsys, style, sign):
    assert main([*pair, "--format", style, "--tables", "6", "--min_occurrences", "10"]) == 0
    assert sign in capsys.readouterr().out


def test_out_writes_all_formats(pair, tmp_path, capsys):
    assert main([*pair, "--out", str(tmp_path / "paper"), "--tables", "5"]) == 0
    assert sorted(path.suffix for path in (tmp_path / "paper").iterdir()) == [".csv", ".md", ".tex", ".txt"]
    assert f"4 files written to {tmp_path / 'paper'}." in capsys.readouterr().out
    rows = list(csv.reader((tmp_path / "paper" / "table5.csv").open()))
    assert rows[0][0] == "class"


def test_bad_input_is_one_line(pair, tmp_path, capsys):
    with pytest.raises(UserError, match="lightning evaluate all --run"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="no evaluation 'last'"):
        main([pair[0], "--evaluation", "last"])
    for arguments in (["--format", "html", pair[0]], [pair[0], "--tables", "one"], []):
        with pytest.raises(SystemExit):
            main(arguments)
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert "\n" not in error
