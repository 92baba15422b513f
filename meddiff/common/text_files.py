"""Text that a user wrote, on whatever machine. Source: own."""

import os
from pathlib import Path

from meddiff.common.errors import UserError


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8; a byte order mark at its beginning is no part of the text.

    Raises:
        UserError: in another encoding, such as the UTF-16 of PowerShell or the Windows-1252 of older editors; not
            readable.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "prompts.txt"
        >>> _ = file.write_bytes(b"\\xef\\xbb\\xbfEffusion.")
        >>> read_text(file)
        'Effusion.'
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check the path and its permissions.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8: save it so.") from None
    if "\0" in text:  # UTF-16 without a mark decodes, and a binary file may
        raise UserError(f"{path} is not text in UTF-8 (it holds zero bytes): save it so.")
    return text
