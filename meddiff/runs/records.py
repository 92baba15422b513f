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
    text = read_text(path)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise UserError(f"{Path(path)} cannot be read ({error}): {remedy}.") from None
    if not isinstance(found, dict):
        raise UserError(f"{Path(path)} holds no mapping of names to values: {remedy}.")
    return found
