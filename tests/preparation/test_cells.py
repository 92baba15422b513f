"""Cells that say "nothing here", lists in cells, and what is no text at all."""

import pytest

from meddiff.preparation.cells import NotText, free_texts, identifier, is_nothing, listed, one_word, says_nothing

NOTHING = ["", " ", "nan", "NaN", "None", "NULL", "null", "N/A", "n/a", "NA", "<NA>", "#N/A", "NaT", "-", "--", "\u2014", "?",
           "\u200b", "\ufeff \u200b", "\u00a0", "[]"]  # fmt: skip
NUMBERS = ["-1", "-1.0", "-9", "-99", "-999", "-9999", "-9999.0"]
NO_TEXT = [
    "___",
    "___.",
    "...",
    "* * *",
    "None.",
    "No report.",
    "no report  available",
    "Unknown",
    "Not available.",
    "-1",
]
TEXTS = ["No pneumonia.", "Normal.", "None of the lines moved.", "No", "1", "A", "\u00d6dem", "\u6c34\u80bf", "NAD"]


@pytest.mark.parametrize("text", NOTHING)
def test_ways_to_write_an_empty_cell(text):
    assert is_nothing(text)
    assert says_nothing(text)
    assert free_texts(text) == listed(text, "|", "labels") == []
    assert one_word(text, "view") == identifier(text, "patient") == ""


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_for_nothing_count_where_a_number_means_nothing_else(text):
    assert not is_nothing(text)
    assert is_nothing(text, numbers=True)
    assert listed(f"Edema|{text}", "|", "labels") == ["Edema"]
    assert identifier(text, "patient") == ""
    assert one_word(text, "image", numbers=False) == text


@pytest.mark.parametrize("text", NO_TEXT)
def test_texts_without_anything_to_say(text):
    assert says_nothing(text)
    assert free_texts([text, "Edema."]) == ["Edema."]


@pytest.mark.parametrize("text", TEXTS)
def test_short_texts_that_say_something_stay(text):
    assert free_texts(text) == [text]


def test_words_that_a_user_names_are_names():
    assert listed("None|nan", "|", "labels", {"None": "No Finding"}) == ["None"]


@pytest.mark.parametrize(
    "value",
    [["a b", "c"], "['a b', 'c']", '["a b", "c"]', " [ 'a b' , \"c\" ] ", "('a b', 'c')", ["a b", None, "nan", "c"],
     "['a b', nan, 'c']".replace("nan", "None"), "{'a b', 'c'}"],
)  # fmt: skip
def test_lists_however_they_are_written(value):
    assert listed(value, "|", "labels") == ["a b", "c"]
    if not str(value).startswith("("):  # a text may stand in round brackets
        assert free_texts(value) == ["a b", "c"]


@pytest.mark.parametrize(
    "value",
    [
        {"en": "a"},
        "{'en': 'a'}",
        True,
        ["a", ["b"]],
        ["a", {"b": 1}],
        "['a' 'b']",
        "['a\n' 'b']",
        "['a', b]",
        "['a', True]",
    ],
)
def test_what_is_no_text_is_told(value):
    for read in (lambda: free_texts(value), lambda: listed(value, "|", "text")):
        with pytest.raises(NotText, match=r"text (is|looks like)"):
            read()


def test_a_cell_of_one_name_takes_no_list_but_one_of_one():
    assert one_word(["a"], "view") == "a"
    assert one_word(7, "view") == "7"
    for value in (["a", "b"], {"a": 1}, False):
        with pytest.raises(NotText, match="view is"):
            one_word(value, "view")


def test_a_patient_is_one_whatever_a_program_made_of_the_number():
    assert {identifier(one, "patient") for one in ("123", "123.0", 123, 123.0, " 123 ", "123\u200b", "123.000")} == {
        "123"
    }
    assert identifier("2020-01-31", "patient") == "2020-01-31"
    assert identifier("1.5", "patient") == "1.5"
    assert identifier("Zo\u0065\u0308", "patient") == identifier("Zo\u00eb", "patient")


def test_texts_in_square_brackets_that_are_no_lists_stay():
    for text in ("[1] normal [2]", "[sic] effusion", "[no effusion]", "(Large) effusion (right)"):
        assert free_texts(text) == [text]
