"""What is written in a cell of a table: text, several texts, or nothing. Source: own.

Programs write "nothing here" as words ("nan", "None", "N/A", "-") or numbers (-1, -9999), and lists as their own syntax
("['a', 'b']"). Taken as they stand they become captions, labels and patients.
"""

import ast
import json
import re
import unicodedata
from collections.abc import Iterable

#: Words for an empty cell, in any case.
_NOTHING = frozenset((
    "nan", "none", "null", "nil", "nat", "na", "n/a", "n.a.", "n.a", "<na>", "#n/a", "#na", "undefined",
    "-", "--", "---", "\u2013", "\u2014", "?", "[]", "{}", "()",
))  # fmt: skip
#: Numbers for an empty cell, where a number has no other meaning: -1, -9, -99, -999, -9999, ... also as -1.0.
_NUMBER = re.compile(r"-(?:1|9{1,6})(?:\.0*)?")
#: Whole texts that say that there is no text, without their full stop.
_NO_TEXT = frozenset(
    """no report|no report available|no text|no impression|no findings section|no caption|no description|not available|
    report not available|not applicable|not specified|unavailable|unknown|missing|empty|blank|no data|error""".replace(
        "\n    ", ""
    ).split("|")
)
#: Characters without width, which no strip() takes.
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_LIST = re.compile(r"""\s*[\[{]\s*['"].*[\]}]\s*""", re.DOTALL)
_BRACKETS = re.compile(r"\s*(?:\[.*\]|\{.*\}|\(\s*['\"].*\))\s*", re.DOTALL)


class NotText(Exception):
    """A cell that holds something else than it should; the text says what."""


def is_nothing(text: str, numbers: bool = False) -> bool:
    """Whether a cell's text is one of the ways to write an empty cell.

    Args:
        numbers: also -1, -9, -99, -999, ...

    Example:
        >>> is_nothing(" NaN "), is_nothing("-1"), is_nothing("-1", numbers=True), is_nothing("No Finding")
        (True, False, True, False)
    """
    bare = visible(text).casefold()
    return not bare or bare in _NOTHING or (numbers and bool(_NUMBER.fullmatch(bare)))


def says_nothing(text: str) -> bool:
    """Whether a free text has nothing to say: no letter and no digit, or words for "there is none".

    Example:
        >>> says_nothing("___."), says_nothing("No report available."), says_nothing("No pneumonia.")
        (True, True, False)
    """
    bare = re.sub(r"\s+", " ", visible(text)).casefold().rstrip(".! ")
    return is_nothing(bare, numbers=True) or bare in _NO_TEXT or not any(one.isalnum() for one in bare)


def visible(text: str) -> str:
    """``text`` without blanks and characters of no width at its ends, each letter written in one way (NFC)."""
    before = ""
    while text != before:
        before, text = text, text.strip().strip(_INVISIBLE)
    return unicodedata.normalize("NFC", text)


def free_texts(value: object, what: str = "text") -> list[str]:
    """The texts of a cell, each on one line; [] where it says nothing.

    Args:
        value: text, a number, null, or a list of them; a list may also be written into a text.

    Raises:
        NotText: an object, a nested list, true or false, or what looks like a list and is none.

    Example:
        >>> free_texts("['Large effusion.', 'nan']"), free_texts(None), free_texts("[sic] effusion")
        (['Large effusion.'], [], ['[sic] effusion'])
    """
    if isinstance(value, str) and _LIST.fullmatch(value):
        value = _written_list(value, what)
    some = value if isinstance(value, list) else [value]
    lines = (" ".join(_scalar(one, what).split()) for one in some)
    return [line for line in lines if not says_nothing(line)]


def one_word(value: object, what: str, numbers: bool = True) -> str:
    """The text of a cell that holds one name (patient, view, split, image); "" where there is none.

    Args:
        numbers: -1, -9, -99, ... are none.

    Raises:
        NotText: an object, several values, true or false.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    text = visible(_scalar(value, what))
    return "" if is_nothing(text, numbers) else text


def identifier(value: object, what: str) -> str:
    """As :func:`one_word`; a whole number is written alike whether a program took it for a fraction (123.0) or not.

    Example:
        >>> identifier("123.0", "patient"), identifier(123, "patient"), identifier("1.25.0", "patient")
        ('123', '123', '1.25.0')
    """
    text = one_word(value, what)
    whole = re.fullmatch(r"(-?\d+)\.0+", text)
    return whole[1] if whole else text


def listed(value: object, separator: str, what: str, keep: Iterable[str] = ()) -> list[str]:
    """The names of a cell: a list, a list written into a text, or names between separators; empty ones are gone.

    Args:
        keep: words that are names, whatever else they may mean.

    Raises:
        NotText: as :func:`free_texts`.

    Example:
        >>> listed("Edema| nan|Effusion", "|", "labels"), listed("['Edema', None]", "|", "labels")
        (['Edema', 'Effusion'], ['Edema'])
    """
    if isinstance(value, str) and _BRACKETS.fullmatch(value):
        value = _written_list(value, what)
    some = value if isinstance(value, list) else _scalar(value, what).split(separator)
    names = (visible(_scalar(one, what)) for one in some)
    kept = set(keep)
    return [name for name in names if name in kept or not is_nothing(name, numbers=True)]


def _scalar(value: object, what: str) -> str:
    if isinstance(value, dict | list | bool):
        kind = {dict: "an object", list: "a list", bool: "true or false"}[type(value)]
        raise NotText(f"{what} is {kind}: {str(value)[:80]}")
    return "" if value is None or value != value else str(value)  # a NaN is not itself


def _written_list(text: str, what: str) -> list[object]:
    """The list in a text, as JSON or as Python prints it."""
    text = visible(text)
    try:
        # without commas (numpy prints so) Python would glue the texts together
        glued = re.search(r"""(?<!\\)(['"])\s+\1""", text)
        value = json.loads(text) if not glued else None
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
    if isinstance(value, set):
        value = sorted(map(str, value))
    if isinstance(value, dict):
        raise NotText(f"{what} is an object: {text[:80]}")
    if not isinstance(value, list | tuple):
        raise NotText(f'{what} looks like a list and is none: {text[:80]} (write ["a", "b"])')
    return list(value)
