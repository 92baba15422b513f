"""What lies where weights should: a pointer, a page or a message that a download left behind. Source: own."""

import os
from pathlib import Path

LFS_POINTER = b"version https://git-lfs"
PAGES = (b"<!doctype", b"<html", b"<?xml", b"<error", b"<head", b"<body", b"<!--")
#: Bytes that tell; a page may begin with a few blank lines.
PEEK = 512


def instead_of_weights(path: str | os.PathLike[str]) -> str | None:
    """One sentence when the first bytes of a file are those of something else than weights; None where they do not tell.

    Weights in a safetensors file begin with the length of a header, those of PyTorch with ``PK`` or a pickle's first byte:
    none of them is text.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            start = stream.read(PEEK)
    except OSError as error:
        return f"{file} cannot be read ({error.strerror}): check its name and permissions."
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return f"{file} is empty, no weights: fetch it again."
    if text.startswith(LFS_POINTER):
        return f"{file} is a Git LFS pointer, not weights: git lfs pull"
    if text.lower().startswith(PAGES):
        return f"{file} is a web page, not weights: look at its address in a browser, and fetch the file itself."
    if text[:1] in b"{[" and text[1:2] in b' \n\r\t"{}[]':
        return f"{file} is JSON text such as a server's error message, not weights: fetch it again."
    if file.suffix == ".safetensors" and start[:4] == b"PK\x03\x04":
        return f"{file} is a PyTorch (zip) file under the name of a safetensors file: give the .safetensors file."
    return None
