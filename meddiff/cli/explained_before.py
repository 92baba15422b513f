"""Which images of ``lightning explain --prompts`` are made already: the same command goes on with the others. Source: own."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from typing_extensions import TypedDict

from meddiff.common.check_sums import digest_of
from meddiff.evaluation.ledger import Ledger


class Made(TypedDict):
    """One line of the ledger: what was asked, and the check sums of what was written for it by name."""

    address: str
    files: dict[str, str]


class ExplainedBefore:
    """The images of a folder that were explained under these settings, as long as their files are what was written.

    Images of other settings in the same folder are written over, as ever: each settings have a ledger of their own.

    Args:
        out: the folder.
        settings: all that pictures depend on but the prompt and its timesteps (JSON types).
    """

    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.out = out
        self.ledger: Ledger[Made] = Ledger(out / f"explained-{digest[:12]}.jsonl", settings, Made)

    def has(self, key: str, prompt: str, timesteps: Sequence[int]) -> bool:
        """Whether the image of this noise, prompt and path needs no work."""
        asked = address_of(key, prompt, timesteps)
        files = next((entry["files"] for entry in reversed(self.ledger.entries) if entry["address"] == asked), None)
        return files is not None and all(
            (self.out / name).is_file() and digest_of(self.out / name) == digest for name, digest in files.items()
        )

    def keep(self, key: str, prompt: str, timesteps: Sequence[int], names: Iterable[str]) -> None:
        """Remember an image when all its files are written."""
        files = {name: digest_of(self.out / name) for name in names}
        self.ledger.add({"address": address_of(key, prompt, timesteps), "files": files})


def address_of(key: str, prompt: str, timesteps: Sequence[int]) -> str:
    """A digest of what is asked of one image."""
    return hashlib.sha256(json.dumps([key, prompt, list(timesteps)]).encode()).hexdigest()
