"""Text that comes from outside (an argument, a tar, a table, a manifest) before it names a file, a command or a line.

One function for each thing that text may become; every door of the suite goes through them. What they refuse is a
:class:`UserError` of one sentence. Source: own.

====================================  ==================================================================
the key of a sample                   :func:`sample_key`
a path below a folder                 :func:`check_relative`, :func:`inside`
the name of a file to be written      :func:`file_in`, :func:`own_file`; from a class: :func:`file_part`
the name of a run                     :func:`run_name`
a URL, and the command that reads it  :func:`url_command`, :func:`check_url`
a line on a terminal                  :func:`terminal`; in a command to be copied: :func:`shell`
a cell of a Markdown table            :func:`markdown_cell`
====================================  ==================================================================
"""

import hashlib
import os
import re
import shlex
from pathlib import Path, PurePosixPath

from meddiff.common.errors import UserError

#: A tar header has 100 bytes for a member's name; this leaves room for the part behind the key.
MAX_KEY_BYTES = 80
#: Longest part of a path: file systems take 255 bytes, of which prefixes, suffixes and temporary names need some.
MAX_PART_BYTES = 200
#: What moves the cursor, colours, reorders or breaks a line: C0, DEL, C1, bidirectional and invisible controls, line and
#: paragraph separators, tags, lone surrogates. Joiners (U+200C, U+200D) and the soft hyphen belong to written words.
CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
#: What a Markdown cell would take as a column, a link, a picture, code or HTML.
MARKDOWN = re.compile(r"[\\|`<>\[\]]")
#: No URL holds these, and every way to break out of a quoted one needs them.
NOT_IN_URLS = re.compile("[\"'`\\\\<>^$|]")
_CURL = ("curl", "--globoff", "--connect-timeout", "30", "--retry", "30", "--retry-delay", "2", "-f", "-s", "-L")
#: scheme -> the command that writes what lies at a URL to its standard output; "{}" stands for the URL.
COMMANDS: dict[str, tuple[str, ...]] = {
    "http": (*_CURL, "--proto-redir", "=http,https", "{}"),
    "https": (*_CURL, "--proto-redir", "=http,https", "{}"),
    "sftp": (*_CURL, "{}"),
    "scp": (*_CURL, "{}"),
    "s3": ("aws", "s3", "cp", "{}", "-"),
    "gs": ("gsutil", "cat", "{}"),
    "ais": ("ais", "get", "{}", "-"),
}


def sample_key(key: str, where: str = "") -> str:
    """``key``, if it can name a sample, its members in a tar and its pictures.

    Args:
        where: of which file it is, for the sentence.

    Raises:
        UserError: no text, empty, more than 80 bytes, with dots, slashes, blanks or control characters, or with two
            underscores at the front.

    Example:
        >>> sample_key("p10_s1")
        'p10_s1'
    """
    if (
        not isinstance(key, str)
        or not key
        or re.search(r"[./\\\s]", key)
        or CONTROLS.search(key)
        or key.startswith("__")
        or len(key.encode()) > MAX_KEY_BYTES
    ):
        raise UserError(
            f"{where + ': ' if where else ''}sample key {key!r} cannot be stored: keys have 1 to {MAX_KEY_BYTES} bytes, no "
            "dots, slashes, blanks or control characters, and do not begin with two underscores; change the reader or the "
            "shard that names it"
        )
    return key


def _leads_out(path: str) -> bool:
    pure = PurePosixPath(path)
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # half a character: JSON can spell it, no file system can
        return True
    return (
        not path
        or pure.is_absolute()
        or ".." in pure.parts
        or "\\" in path
        or "\0" in path
        or re.match(r"[A-Za-z]:", path) is not None
    )


def check_relative(path: str) -> None:
    """Refuse a path that is not plainly below the folder it is relative to.

    Raises:
        UserError: empty, absolute, with "..", a drive, a backslash or a NUL.
    """
    if _leads_out(path):
        raise UserError(f"path {path!r} does not stay inside the root: paths must be relative to it, without '..'.")


def inside(root: str | Path, path: str) -> Path:
    """``root / path``, which need not exist.

    Raises:
        UserError: the path, or a link on its way, leads out of the root.
    """
    check_relative(path)
    joined = Path(root) / path
    try:
        end, top = joined.resolve(), Path(root).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise UserError(f"{joined} cannot be followed ({error}): check the links on its way.") from None
    if not end.is_relative_to(top):
        raise UserError(
            f"{joined} is a link that leads out of the root to {end}: nothing outside the root is read, "
            "so put the files there or choose a root above both."
        )
    return joined


def file_in(folder: str | Path, name: str) -> Path:
    """``folder / name``, to be written or removed: ``name`` is one part of a path, and no link stands there.

    Raises:
        UserError: a name of several parts or of none, hidden controls, too long, or a link.
    """
    if (
        not isinstance(name, str)
        or _leads_out(name)
        or "/" in name
        or name == "."
        or CONTROLS.search(name)
        or len(os.fsencode(name)) > MAX_PART_BYTES
    ):
        raise UserError(
            f"{name!r} cannot name a file in {folder}: a file name has 1 to {MAX_PART_BYTES} bytes, no slashes or control "
            "characters, and is not '..'"
        )
    return own_file(Path(folder) / name)


def own_file(path: Path) -> Path:
    """``path``, if it is no link: a run or shard folder made by others must not lead writing out of itself.

    Raises:
        UserError: it is a link.
    """
    if path.is_symlink():
        raise UserError(f"{path} is a link to {os.readlink(path)}, nothing is written through it: remove the link")
    return path


def file_part(name: str) -> str:
    """A name of the cohort (a class) as a part of a file name; what a file system might take otherwise ends in a digest.

    Example:
        >>> file_part("Pleural Effusion")
        'pleural_effusion'
        >>> file_part("../../x")
        'x-9cdf6a50'
    """
    plain = name.lower().replace(" ", "_")
    short = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:60]
    if re.fullmatch(r"[a-z0-9_]{1,60}", plain):
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{short or 'name'}-{digest}"


def run_name(name: str) -> str:
    """``name``, if it is a path of one or more parts below the folder of all runs.

    Raises:
        UserError: empty, absolute, with "..", control characters, or a part that no file system takes.

    Example:
        >>> run_name("frozen/seed-1")
        'frozen/seed-1'
    """
    parts = PurePosixPath(name).parts
    if (
        _leads_out(name)
        or not parts
        or CONTROLS.search(name)
        or any(len(os.fsencode(part)) > MAX_PART_BYTES for part in parts)
    ):
        raise UserError(
            f"--name {name!r} leaves the folder of runs or cannot name a folder: give a name such as frozen or frozen/seed-1"
        )
    return name


def url_scheme(url: str) -> str:
    """``"s3"`` of ``"s3://bucket/name"``; "" of a path.

    Example:
        >>> url_scheme("HTTPS://host/x"), url_scheme("a/b:c")
        ('https', '')
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", url)
    return found[1].lower() if found else ""


def check_url(url: str) -> None:
    """Refuse what no URL holds, a quote above all.

    Raises:
        UserError: a quote, a backslash, a bracket, a dollar sign or a control character.
    """
    bad = NOT_IN_URLS.search(url) or CONTROLS.search(url)
    if bad:
        hexadecimal = "".join(f"%{byte:02X}" for byte in bad[0].encode("utf-8", "surrogatepass"))
        raise UserError(f"the URL {url!r} holds {bad[0]!r}, which no URL does: write it as {hexadecimal} or rename it")


def url_command(url: str) -> list[str]:
    """The command, as a list of arguments for no shell, that writes what lies at ``url`` to its standard output.

    Raises:
        UserError: a scheme without a command, or characters that no URL has.
    """
    check_url(url)
    command = COMMANDS.get(url_scheme(url))
    if command is None:
        raise UserError(f"the URL {url!r} cannot be read: its scheme must be one of {', '.join(COMMANDS)}")
    return [url if part == "{}" else part for part in command]


def _visible(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def terminal(text: object, newlines: bool = False) -> str:
    r"""``text`` for a terminal: nothing in it acts, controls are spelled out.

    Args:
        newlines: keep line feeds, for text of several lines whose parts went through here.

    Example:
        >>> terminal("a\x1b[2J\nb")
        'a\\x1b[2J\\nb'
    """
    if newlines:
        return "\n".join(terminal(line) for line in str(text).split("\n"))
    return CONTROLS.sub(_visible, str(text))


def shell(text: object) -> str:
    """``text`` as one word of a command that is shown to be copied into a shell.

    Example:
        >>> shell("runs/a; touch x")
        "'runs/a; touch x'"
    """
    return terminal(shlex.quote(str(text)))


def markdown_cell(text: object) -> str:
    """``text`` for a cell of a Markdown table: one line, no column, link, picture, code or HTML of its own.

    Example:
        >>> markdown_cell("a|b<i>")
        'a\\\\|b\\\\<i\\\\>'
    """
    return MARKDOWN.sub(lambda found: "\\" + found[0], terminal(text))
