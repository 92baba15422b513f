"""What a folder of latent shards says about itself: ``manifest.json`` (source: own; design, "Shard schema")."""

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from meddiff.common.bounded import Unbounded, parse_json
from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.common.ranges import POSITIVE
from meddiff.common.text_files import read_bytes
from meddiff.shards.access import ACCESS, Access, access_of
from meddiff.shards.checked import manifest_problem
from meddiff.shards.schema import SplitCounts, VaeIdentity

#: 2 where every split has its pictures: earlier programs must not take such a folder for one they know.
SCHEMA_VERSIONS = (1, 2)
MANIFEST_NAME = "manifest.json"
VAE_FIELDS = tuple(VaeIdentity.__annotations__)
#: Of which splits the pictures are stored: those of evaluation (:data:`meddiff.shards.members.IMAGE_SPLITS`), or all.
Pictures = Literal["evaluation", "all"]
#: What stands for the autoencoder of a folder without latents.
NO_VAE: VaeIdentity = {
    "class": "none",
    "sha256": "",
    "source": "",
    "scaling_factor": 1.0,
    "latent_channels": 0,
    "downsample": 1,
}
#: What a shard's file may be called: a record's name is joined to the folder, opened, and unlinked when it is of before.
SHARD_NAME = re.compile(r"[A-Za-z0-9_]{1,100}-\d{1,12}\.tar")


@dataclass(frozen=True)
class ShardRecord:
    """One tar file: what is in it and how to tell that it is whole.

    Attributes:
        name: file name inside the folder, ``<split>-00000.tar``.
        bytes: size of the file; sha256: of the whole file.
        keys_sha256: of the planned keys joined by newlines, so that a continued run knows its slice is unchanged.
        labels: label -> number of samples that carry it.
        unreadable: planned key -> why its image could not be read; these are not in the file.
        boxes: {"kept": n, "cut": n, "lost": n}, boxes in the crop, of which cut by it, and outside it; {} without boxes.
        made: digest of what the samples are made from (texts, boxes, images); empty where the options say all.

    Raises:
        UserError: a name that is not that of a shard: it could lead out of the folder.
    """

    name: str
    split: str
    samples: int
    bytes: int
    sha256: str
    keys_sha256: str = ""
    labels: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    boxes: dict[str, int] = field(default_factory=dict)
    made: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not SHARD_NAME.fullmatch(self.name):
            raise UserError(
                f"{self.name!r} cannot be the name of a shard: it must be <split>-00000.tar, in the same folder"
            )


@dataclass(frozen=True)
class Manifest:
    """The identity card of a shard folder; without ``shards`` it is the header a writer starts from.

    Attributes:
        cohort: name of the reader that made the samples; command: the command line that did.
        options: the options that made the cohort (seed, sizes, ...), JSON values only.
        vae: the autoencoder that made the latents.
        latent: "moments" = (2C, h, w) posterior mean and log-variance, "mean" = (C, h, w); both before scaling; "none" where
            pictures alone are stored (``vae`` is then :data:`NO_VAE`).
        latent_shape: (C, h, w) of one latent; (0, 0, 0) without.
        resolution: side of the square image in pixels.
        resize: the resize and antialias rule, in words.
        counts: split -> what its shards count together.
        funnel: (rule, images left, images removed) in order, from the first row read to the samples written.
        pictures: the splits whose pictures are stored.
        access: whether pictures and texts may leave the machine; None, as in files of before, is decided by the cohort.
    """

    cohort: str
    command: str
    options: dict[str, object]
    vae: VaeIdentity
    latent: Literal["moments", "mean", "none"]
    latent_shape: tuple[int, int, int]
    resolution: int
    resize: str
    shards: tuple[ShardRecord, ...] = ()
    counts: dict[str, SplitCounts] = field(default_factory=dict)
    funnel: tuple[tuple[str, int, int], ...] = ()
    schema_version: int = SCHEMA_VERSIONS[0]
    access: Access | None = None
    pictures: Pictures = "evaluation"

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema_version", SCHEMA_VERSIONS[self.pictures == "all"])
        if self.access is None:
            object.__setattr__(self, "access", access_of(self.cohort))

    @property
    def cohort_access(self) -> tuple[str, Access]:
        """The cohort's name and access; what is not said to be public is credentialed."""
        return self.cohort, "public" if self.access == "public" else "credentialed"

    @property
    def scaling_factor(self) -> float:
        factor = float(self.vae["scaling_factor"])
        if not POSITIVE.holds(factor):
            raise UserError(
                f"the manifest of {self.cohort} says scaling_factor {factor}; it must {POSITIVE}: prepare it again"
            )
        return factor

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Shape of ``KEY.latent.npy``: (2C, h, w) for moments, (C, h, w) for means."""
        channels, height, width = self.latent_shape
        return (2 * channels if self.latent == "moments" else channels, height, width)

    def split(self, name: str) -> tuple[ShardRecord, ...]:
        """The shards of one split, in the order of their names; empty when there is no such split."""
        return tuple(sorted((shard for shard in self.shards if shard.split == name), key=lambda shard: shard.name))

    def samples(self, name: str) -> int:
        """Number of samples in one split."""
        return sum(shard.samples for shard in self.split(name))

    def to_json(self) -> dict[str, object]:
        values = asdict(self) | {"latent_shape": list(self.latent_shape)}
        if (
            self.pictures == "evaluation"
        ):  # what there was before there was a choice: such a file is what it was, byte by byte
            del values["pictures"]
        return values

    def write(self, folder: str | Path) -> None:
        """Write ``manifest.json`` into ``folder``, whole or not at all."""
        write_json(Path(folder) / MANIFEST_NAME, self.to_json())

    @classmethod
    def read(cls, folder: str | Path) -> "Manifest":
        """Read ``folder/manifest.json`` (or the JSON file itself).

        Raises:
            UserError: there is none, it is not a manifest, or its schema is another one.
        """
        path = Path(os.path.expanduser(folder))
        path = path if path.suffix == ".json" else path / MANIFEST_NAME
        try:
            text = read_bytes(path).decode("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"no latent shards at {folder} ({MANIFEST_NAME} is missing): "
                f"write them with `lightning prepare COHORT --out {folder}`"
            ) from None
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path that no file system takes
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot read {path} ({reason}): check the path and its permissions") from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, where: str) -> "Manifest":
        """Build a manifest from the text of a ``manifest.json``; ``where`` names it in errors (:class:`UserError`)."""
        again = "write the shards again with `lightning prepare`"
        try:
            values = parse_json(text)
        except Unbounded as error:
            raise UserError(f"{where} is damaged (it {error}): {again}") from None
        except ValueError as error:
            raise UserError(f"{where} is not JSON ({error}): {again}") from None
        version = values.get("schema_version") if isinstance(values, dict) else None
        if isinstance(version, bool) or version not in SCHEMA_VERSIONS:
            known = " and ".join(map(str, SCHEMA_VERSIONS))
            raise UserError(f"{where} has schema version {version}, this program reads {known}: {again}")
        try:
            values["latent_shape"] = _shape(values["latent_shape"])
            values["shards"] = tuple(ShardRecord(**shard) for shard in values["shards"])
            values["funnel"] = tuple((str(rule), int(left), int(out)) for rule, left, out in values.get("funnel", ()))
            manifest = cls(**values)
            missing = [name for name in VAE_FIELDS if name not in manifest.vae]
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UserError) as error:
            raise UserError(f"{where} is damaged ({error}): {again}") from None
        bounds = manifest_problem(text)
        wrong = [
            *(
                [f"its pictures go with schema version {manifest.schema_version}"]
                if manifest.schema_version != version
                else []
            ),
            *([bounds] if bounds is not None else []),
            *([f"vae lacks {', '.join(missing)}"] if missing else []),
            *([f"latent is {manifest.latent!r}"] if manifest.latent not in ("moments", "mean", "none") else []),
            *([f"pictures is {manifest.pictures!r}"] if manifest.pictures not in ("evaluation", "all") else []),
            *([f"access is {manifest.access!r}, not {' or '.join(ACCESS)}"] if manifest.access not in ACCESS else []),
        ]
        if wrong:
            raise UserError(f"{where} is damaged ({wrong[0]}): {again}")
        return manifest

    def check(
        self,
        *,
        vae_sha256: str | None = None,
        latent_shape: tuple[int, int, int] | None = None,
        resolution: int | None = None,
        where: str = "the latent shards",
    ) -> None:
        """Refuse shards that were made for another model (None = not asked).

        Args:
            vae_sha256: digest of the VAE the model decodes with.
            latent_shape: (C, h, w) the model takes.
            resolution: side of the image in pixels.

        Raises:
            UserError: one sentence with the two values that disagree and what to do.
        """
        questions = (
            ("VAE (sha256)", self.vae["sha256"], vae_sha256),
            ("latent shape", tuple(self.latent_shape), None if latent_shape is None else tuple(latent_shape)),
            ("resolution", self.resolution, resolution),
        )
        for name, ours, theirs in questions:
            if theirs is not None and ours != theirs:
                raise UserError(
                    f"{where} ({self.cohort}) were made with {name} {_brief(ours)} but the model has {_brief(theirs)}: "
                    f"prepare shards with the model's VAE and resolution (`lightning prepare`), or change the model"
                )


def _shape(value: Iterable[int]) -> tuple[int, int, int]:
    channels, height, width = (int(side) for side in value)
    return channels, height, width


def _brief(value: object) -> str:
    """Digests are cut to 12 digits: enough to tell two apart in a sentence."""
    return value[:12] if isinstance(value, str) and len(value) > 16 else str(value)
