"""The command that makes a cohort's shards again for another autoencoder or resolution. Source: own."""

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from meddiff.common.outside import shell

if TYPE_CHECKING:
    from meddiff.shards.manifest import Manifest

#: What stands for the folder of a cohort where the manifest does not say it.
DOWNLOAD = "DOWNLOAD"
COHORT = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


def remake_command(manifest: "Manifest", out: str | Path, vae: str, resolution: int) -> str:
    """``lightning prepare COHORT ... --vae VAE --resolution R --out OUT``: the manifest's own command with those replaced.

    It names folders of this machine: for a terminal, not for a file that is given away. Every word is quoted, whatever the
    manifest holds.

    Args:
        out: the folder for the new shards.
        vae: source of the autoencoder.
        resolution: side of the images in pixels.
    """
    try:
        words = shlex.split(manifest.command)
    except ValueError:
        words = []
    if words[:2] != ["lightning", "prepare"] or len(words) < 3 or not COHORT.fullmatch(words[2]):
        name = manifest.cohort.replace("_", "-")
        name = name if COHORT.fullmatch(name) else "COHORT"
        words = ["lightning", "prepare", name, *(_options(manifest) if name == "phantom" else ["--root", DOWNLOAD])]
    kept = _without(words, ("--vae", "--resolution", "--out", "--store"))
    if manifest.pictures == "all":  # whoever has pictures keeps them
        kept += ["--store", "both"]
    kept += ["--vae", vae, "--resolution", str(resolution), "--out", str(out)]
    return " ".join(shell(word) for word in kept)


def _without(words: list[str], flags: tuple[str, ...]) -> list[str]:
    """``words`` without some flags and their values."""
    kept, skip = [], False
    for word in words:
        flag, equals, _ = word.partition("=")
        if skip:
            skip = False
        elif flag in flags:
            skip = not equals
        else:
            kept.append(word)
    return kept


def _options(manifest: "Manifest") -> list[str]:
    """The options of a cohort that was made without a command (phantoms at first use) as flags."""
    given = {name: value for name, value in manifest.options.items() if value is not None and value != []}
    return [
        part
        for name, value in given.items()
        if re.fullmatch("[a-z_]+", name)
        for part in (f"--{name}", value if isinstance(value, str) else json.dumps(value))
    ]
