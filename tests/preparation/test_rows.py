"""Official tables: cells for nothing, cells without end, and tables that are not what they were."""

import csv

import pytest

from meddiff.common.csv_rows import csv_records, csv_rows
from meddiff.common.errors import UserError
from meddiff.preparation.records import Funnel
from meddiff.preparation.rows import Sieve, read_rows
from meddiff.runs.tables import parse_table
from tests.builders.folder_tree import write_text_table


def test_words_for_nothing_are_empty_cells_and_numbers_stay(tmp_path):
    write_text_table(tmp_path, "a,b,c\nnan,None,-1\nN/A,<NA>,No finding\n")
    assert list(read_rows(tmp_path, "meta.csv", ("a",))) == [
        {"a": "", "b": "", "c": "-1"},
        {"a": "", "b": "", "c": "No finding"},
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b,a\n1,2,3\n", "has the column 'a' twice"),
        ("a,b\n1,2\n1,2,3\n", "line 3 has more cells than the header"),
        ('a,b\n1,"never closed\n2,3\n', "cannot be read to its end"),
    ],
)
def test_tables_whose_values_would_stand_in_wrong_columns_are_refused(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        list(read_rows(write_text_table(tmp_path, text), "meta.csv", ("a", "b")))


def test_columns_without_a_name_may_repeat_and_trail(tmp_path):
    write_text_table(tmp_path, "a,b,,\n1,2,,\n1,2\n1,2,,,\n")
    assert [row["b"] for row in read_rows(tmp_path, "meta.csv", ("a", "b"))] == ["2", "2", "2"]


def test_cells_of_any_length_are_read_by_every_reader(tmp_path):
    long = "x" * 400_000
    write_text_table(tmp_path, f"a,b\n1,{long}\n")
    for read in (
        lambda: next(iter(read_rows(tmp_path, "meta.csv", ("a",)))),
        lambda: parse_table(f"a,b\n1,{long}\n")[0],
        lambda: next(csv_records(["a,b\n", f"1,{long}\n"])),
        lambda: dict(zip("ab", next(csv_rows([f"1,{long}\n"])), strict=True)),
    ):
        csv.field_size_limit(131_072)
        assert read() == {"a": "1", "b": long}


def test_a_rule_that_is_seldom_needed_is_a_step_only_where_it_takes_something():
    funnel = Funnel()
    sieve = Sieve([1, 2, 3], str, funnel)
    sieve.seldom("none", lambda _: None)
    sieve.seldom("two", lambda one: "two" if one == 2 else None)
    assert funnel.rows() == [("read", 3, 0), ("two", 2, 1)]
    assert [(one.item, one.rule) for one in sieve.rejected] == [("2", "two")]
