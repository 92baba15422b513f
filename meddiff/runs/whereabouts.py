"""Where the parts and the cohort of a run lie, so that they are found from any folder, and are the same.

A configuration names them as the user did, often relative to where he stood. What the suite ships is known by its name
(``assets/...``) wherever it is installed. Of everything else the place and a digest are noted when a training begins, in the
run folder and in every checkpoint. Source: own.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.places import locate
from meddiff.runs import names
from meddiff.runs.values import nested

#: What a source is in a configuration -> where it lay, and the digest of what lay there.
Whereabouts = Mapping[str, Mapping[str, str]]
#: Files that make a part or a set of shards what it is.
TOLD_BY = (".json", ".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".txt", ".csv", ".yaml")
#: Bytes at either end of a large file that are read.
ENDS = 2**20
#: How many folders above a run are looked through for what runs of earlier days did not note.
ABOVE = 4
SHARDS = "manifest.json"


def whereabouts(config: Mapping[str, object], folder: str | None = None) -> dict[str, dict[str, str]]:
    """Of every file and folder that ``model`` and ``data`` of a configuration name: the place and a digest.

    Args:
        config: of the run, as resolved.
        folder: of shards that the data module made itself.
    """
    arguments = [nested(config, section, "init_args") for section in ("model", "data")]
    found: dict[str, dict[str, str]] = {}
    for text in [*_texts(arguments), *([folder] if folder else [])]:
        if text not in found and (place := _here(text)) is not None:
            found[text] = {"place": str(place.resolve()), "sha256": content_digest(place)}
    return found


def content_digest(place: Path) -> str:
    """sha256 over what lies in a folder or file: of shards their manifest, else names, sizes and both ends of each file.

    Whole files of gigabytes are not read, so it tells versions apart, and finds no single changed byte.
    """
    made = hashlib.sha256()
    whole = place / SHARDS
    files = [place] if place.is_file() else [whole] if whole.is_file() else sorted(place.rglob("*"))
    for file in files:
        if not file.is_file() or (file != place and file.suffix not in TOLD_BY):
            continue
        size = file.stat().st_size
        made.update(f"{file.relative_to(place) if file != place else ''}\n{size}\n".encode())
        with file.open("rb") as stream:
            made.update(stream.read(ENDS))
            stream.seek(max(0, size - ENDS))
            made.update(stream.read(ENDS))
    return made.hexdigest()


def found_again(arguments: Mapping[str, object], known: Whereabouts, run: Path | None) -> dict[str, object]:
    """Arguments of a class with their files where they lie now: here, where they lay, or beside an earlier run.

    What is nowhere stays as it is, for whoever needs it to say so.

    Args:
        known: what was noted.
        run: its folder; None for a checkpoint that lies elsewhere.

    Raises:
        UserError: something else lies here under the name, and what was trained with is gone.
    """
    return {name: _placed(value, known, run, name) for name, value in arguments.items()}


def _placed(value: object, known: Whereabouts, run: Path | None, name: str) -> object:
    if isinstance(value, str):
        return place_of(value, known, run, name)
    if isinstance(value, Mapping):
        return {key: _placed(inner, known, run, name) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_placed(inner, known, run, name) for inner in value)
    return value


def place_of(text: str, known: Whereabouts, run: Path | None, name: str = "") -> str:
    """Where a file or folder lies that a configuration calls ``text``; errors as of :func:`found_again`."""
    noted = known.get(text)
    here = _here(text)
    if noted is None:
        return text if here is not None else _beside(text, run) or text
    before, sha256 = Path(noted["place"]), noted["sha256"]
    if here is not None and content_digest(here) == sha256:
        return text
    if before.exists() and content_digest(before) == sha256:
        return str(before)
    if (beside := _beside(text, run, sha256)) is not None:
        return beside
    # shards may be prepared once more where they were; an autoencoder that others took the place of draws something else
    if before.exists() and name != "vae":
        return text if here is not None and here.resolve() == before else str(before)
    if here is None and not before.exists():
        return text
    raise UserError(
        f"{name or 'the run'}: {text} is not what the checkpoint was trained with, and neither is what lies at {before} "
        f"now: say where that is ({'--vae' if name == 'vae' else '--shards'})."
    )


def read_whereabouts(run: Path | None, checkpoint: Mapping[str, object] | None = None) -> Whereabouts:
    """As noted in the run folder, else in the checkpoint; {} for those of earlier days."""
    if run is not None and (run / names.WHEREABOUTS).is_file():
        try:
            found = json.loads((run / names.WHEREABOUTS).read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError):
            found = None
    else:
        found = (checkpoint or {}).get(names.NOTED)
    if not isinstance(found, dict):
        return {}
    return {
        name: entry
        for name, entry in found.items()
        if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("place", "sha256"))
    }


def _here(text: str) -> Path | None:
    """The file or folder of the user's that is meant; None for the suite's own, and for what is no path."""
    if not text or len(text) > 4096 or "\0" in text or "\n" in text or text.startswith("hub:"):
        return None
    path = Path(text).expanduser()
    try:
        return path if path.exists() and (path.is_absolute() or len(path.parts) > 1 or path.is_dir()) else None
    except OSError:
        return None


def _beside(text: str, run: Path | None, sha256: str | None = None) -> str | None:
    """Below one of the folders above a run, where a relative path was meant from one of them."""
    path = Path(text)
    if run is None or path.is_absolute() or len(path.parts) < 2 or locate(text).exists():
        return None
    for above in list(run.resolve().parents)[:ABOVE]:
        try:
            if (above / path).exists() and sha256 in (None, content_digest(above / path)):
                return str(above / path)
        except (OSError, ValueError):
            return None
    return None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
