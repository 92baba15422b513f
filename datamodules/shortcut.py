"""Training sets in which a finding and a confounder agree as often as asked, for the diagnosis of shortcuts.

Source: own; spec/patronus_and_visual_analysis.md C1.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.image_shards import ImageShardsDataModule
from datamodules.latent_shards import LatentShardsDataModule
from meddiff.common.binary_labels import Blank, Uncertain
from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.common.outside import terminal
from meddiff.shards.agreement import Chosen, Margins, choose, choose_stamped, has, is_column
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.pixels import PicturesDataset
from meddiff.shards.stamp import Stamp

#: The held-out split in which finding and confounder are independent.
BALANCED = "balanced"
#: The confounder that is drawn onto pictures.
STAMP = "stamp"
#: What a run folder says of the set it was trained on.
FILE = "shortcut.json"
#: The experiment's agreements: their sets are of one size, so that a difference is not one of numbers.
AGREEMENTS = (0.5, 0.75, 0.95)


class ShortcutLatentsDataModule(LatentShardsDataModule):
    """Latents of a training set in which finding A and confounder B agree in a share ``rho`` of the samples.

    Samples are left out, none is repeated (:mod:`meddiff.shards.agreement`); 0.5 is the balanced control. Held-out splits
    are as they are; the split "balanced" is the part of ``held_out_split`` in which A says nothing about B. What was chosen
    is written into the run folder, ``shortcut.json``.

    Args:
        finding: A: a label, or an attribute or column of the table that is 1 or 0 (-1: ``uncertain``).
        confounder: B: likewise; or of phantoms a confounder (tube, marker, pacemaker, text, site); or "stamp", a marker
            that is drawn onto pictures.
        rho: P(B = A) in training.
        size: samples of the training set; null takes the most that ``rho`` and all of ``agreements`` allow.
        margins: balanced: half of the set has A and half has B; free: as they come, which allows larger sets.
        agreements: of the other sets of the experiment, which are as large.
        uncertain: what -1 counts as in an attribute or column.
        blank: what a blank counts as there.
        held_out_split: split that "balanced" is a part of.
    """

    stamps: ClassVar[bool] = False  #: whether there are pictures to draw a stamp on

    def __init__(
        self,
        finding: str,
        confounder: str,
        rho: float = 0.95,
        size: int | None = None,
        margins: Margins = "balanced",
        agreements: tuple[float, ...] = AGREEMENTS,
        uncertain: Uncertain = "ignored",
        blank: Blank = "ignored",
        held_out_split: str = "fidelity",
        **kwargs: object,
    ) -> None:
        # passed on as they come, so that jsonargparse finds the parent's arguments with their defaults
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.finding, self.confounder, self.rho, self.size = finding, confounder, rho, size
        self.margins, self.agreements, self.uncertain, self.blank = margins, tuple(agreements), uncertain, blank
        self.held_out_split = held_out_split
        if confounder == STAMP and not self.stamps:
            raise UserError("a stamp is drawn onto pictures: train on pixels (datamodules.ShortcutDataModule).")
        if finding == confounder:
            raise UserError(f"finding and confounder are both {finding!r}: name two things.")
        if self.streaming:
            raise UserError("samples of streamed shards cannot be chosen: give a local folder of shards.")
        self._chosen: dict[str, Chosen] = {}
        self._parts: dict[str, LatentShardsDataset] = {}

    @classmethod
    def preflight(cls, **init_args: object) -> list[str]:
        """As of any shards, and whether the agreement can be reached."""
        module = cls(**init_args)  # type: ignore[arg-type]  # jsonargparse has checked them
        if problems := super().preflight(**init_args):
            return problems
        try:
            _ = module.chosen(module.train_split), module.chosen(BALANCED)
        except UserError as error:
            return [str(error)]
        return []

    def chosen(self, split: str) -> Chosen:
        """What of the training split is trained on, or what "balanced" is made of.

        Raises:
            UserError: the agreement cannot be reached, or no sample carries the finding or the confounder.
        """
        if split not in self._chosen:
            source, rho = (self.held_out_split, 0.5) if split == BALANCED else (split, self.rho)
            size, others = (None, ()) if split == BALANCED else (self.size, self.agreements)
            try:
                self._chosen[split] = self._choose(super().dataset(source), rho, size, others)
            except UserError as error:
                raise UserError(
                    f"{self.finding} (A) and {self.confounder} (B) in split {source!r} of {self._folder()}: {error}"
                ) from None
        return self._chosen[split]

    def _choose(self, whole: LatentShardsDataset, rho: float, size: int | None, others: Iterable[float]) -> Chosen:
        rows = {key: whole.metadata(place) for place, key in enumerate(whole.keys)}
        found: dict[str, dict[str, bool | None]] = {}
        for name in [self.finding] if self.confounder == STAMP else [self.finding, self.confounder]:
            policy = (self.uncertain, self.blank, is_column(rows.values(), name))
            found[name] = {key: has(row, name, *policy) for key, row in rows.items()}
            if not any(found[name].values()):
                labels = Counter(label for row in rows.values() for label in row["labels"])
                known = ", ".join(terminal(label) for label, _ in labels.most_common(12))
                raise UserError(f"no sample has {name!r} (labels are {known or 'none'}): name another.")
        if self.confounder == STAMP:
            return choose_stamped(found[self.finding], rho, size, self._seed())
        pairs = {key: (found[self.finding][key], found[self.confounder][key]) for key in rows}
        return choose(pairs, rho, size, self.margins, others, self._seed())

    def has_split(self, split: str) -> bool:
        """As of any shards; and there is always a split "balanced"."""
        return split == BALANCED or super().has_split(split)

    def dataset(self, split: str) -> LatentShardsDataset:
        """A split as it is stored; of the training split what was chosen, and "balanced"."""
        if split not in (BALANCED, self.train_split):
            return super().dataset(split)
        if split not in self._parts:
            whole, chosen = super().dataset(self.held_out_split if split == BALANCED else split), self.chosen(split)
            place = {key: number for number, key in enumerate(whole.keys)}
            part = whole.only(np.asarray([place[key] for key in chosen.keys]))
            if isinstance(part, PicturesDataset) and chosen.stamped:
                part.stamp = Stamp(chosen.stamped)
            self._parts[split] = part
        return self._parts[split]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and self.trainer is not None and self.trainer.is_global_zero:
            write_json(Path(self.trainer.default_root_dir) / FILE, self.facts())

    def facts(self) -> dict[str, object]:
        """What was chosen, for the run folder: names, agreement and phi that were reached, counts and keys."""
        parts = {split: self.chosen(split) for split in (self.train_split, BALANCED)}
        about = {"finding": self.finding, "confounder": self.confounder, "margins": self.margins}
        return about | {
            "splits": {
                split: one._asdict() | {"stamped": sorted(one.stamped), "samples": len(one.keys)}
                for split, one in parts.items()
            }
        }

    def _samples(self) -> int:
        return len(self.chosen(self.train_split).keys)

    def _facts(self) -> dict[str, int | str]:
        chosen = self.chosen(self.train_split)
        names = "\n".join([*chosen.keys, "", *sorted(chosen.stamped)])
        what = f"{self.finding}, {self.confounder}, {self.rho} ({hashlib.sha256(names.encode()).hexdigest()[:12]})"
        return super()._facts() | {"shortcut": what}


class ShortcutDataModule(ShortcutLatentsDataModule, ImageShardsDataModule):
    """Pictures of a training set in which a finding and a confounder agree in a share ``rho`` of the samples.

    Args:
        shards, resolution, channels: as of :class:`~datamodules.image_shards.ImageShardsDataModule`; all else as of
            :class:`ShortcutLatentsDataModule`.
    """

    stamps: ClassVar[bool] = True
