"""JSON files of a run folder that this suite wrote and goes on from, ``evaluation.json`` and such. Source: own."""

import os
from pathlib import Path

from meddiff.common.bounded import parse_json
from meddiff.common.errors import UserError
from meddiff.common.text_files import read_text


def read_record(path: str | os.PathLike[str], remedy: str = "move it away, and call again") -> dict[str, object]:
    """The mapping in a file; a missing file is an empty one.

    Args:
        remedy: ends the sentence.

    Raises:
        UserError: it cannot be read, is no JSON, or holds something else than a mapping.

    Example:
        >>> read_record("/not/there.json")
        {}
    """
    if not os.path.lexists(path):
        return {}
    return parse_record(read_text(path), str(Path(path)), remedy)


def parse_record(text: str | bytes, where: str, remedy: str) -> dict[str, object]:
    """The mapping in a JSON text.

    Args:
        where: begins the sentence, such as the file and its line.
        remedy: ends it.

    Raises:
        UserError: it is no JSON, or holds something else than a mapping.

    Example:
        >>> parse_record('{"a": 1}', "x.jsonl, line 1", "move it away")
        {'a': 1}
    """
    try:
        found = parse_json(text)
    except ValueError as error:
        raise UserError(f"{where} cannot be read ({error}): {remedy}.") from None
    if not isinstance(found, dict):
        raise UserError(f"{where} holds no mapping of names to values: {remedy}.")
    return found
