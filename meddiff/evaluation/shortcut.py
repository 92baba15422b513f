"""Does a model that was trained on biased data draw the confounder when it is asked for the finding? One number, with
controls.

The same edit of the same held-out images (in which finding and confounder are independent) by two models, one trained on
biased and one on balanced data; the same two scorers (:mod:`meddiff.evaluation.concept_scores`) look at the pictures.
Tables:

- ``shortcut``: of each model what the edit of ``finding`` moved and leaked to ``confounder``, and the index, with bootstrap
  intervals over images; what the scorers are worth on real images stands in the same table
- ``shortcut_images``: a row an image and model

Source: own; the diagnosis is that of Weng et al. 2026, who show pictures and print no number (spec A7.8, C1).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.progress import progress_bar
from meddiff.evaluation.concept_scores import ConceptScorer, Quality, check_concept, flags_of, quality, teach
from meddiff.evaluation.feature_cache import measure, stored_images
from meddiff.evaluation.image_sets import pixels
from meddiff.evaluation.ledger import Ledger, open_ledger
from meddiff.evaluation.measurement import Result, Row, Table, Value
from meddiff.evaluation.prototype_inputs import patronus
from meddiff.evaluation.provenance import sample_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.shortcut_edits import ByPrototypes, ByWords, Way, prototype_cost
from meddiff.evaluation.shortcut_settings import ShortcutOptions
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.leak import Figure, Moves, leak_of, moved, shortcut_index
from meddiff.models.feature_extractors import Extractor, build_extractor, extractor_identity, missing_extractors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.patronus import Patronus
from meddiff.shards.dataset import LatentShardsDataset

__all__ = ["Shortcut", "ShortcutOptions"]

Floats = NDArray[np.float64]
FIRST = ("model", "seed", "images", "finding", "confounder", "of", "figure", "value", "low", "high", "n", "edited")
EACH = ("model", "seed", "images", "of", "key", "own_down", "own_up", "other_down", "other_up", "odd")
BIASED, BALANCED = "biased", "balanced"


class Entry(TypedDict):
    """One line of the ledger: the scores of one image edited down and up."""

    address: str
    made: str
    own: list[float]  # down, up
    other: list[float]
    odd: float | None


class Shortcut:
    """The shortcut index of a model.

    Args:
        options: what is edited and scored.
        balanced: the same model trained on balanced data; without it there are leaks and no index.
        coupled: finding and confounder of the run's data, where options name none.
        show_progress: draw a progress bar.
    """

    def __init__(
        self,
        options: ShortcutOptions = ShortcutOptions(),  # noqa: B008 (frozen dataclass)
        balanced: LatentDiffusion | None = None,
        coupled: tuple[str, str] | None = None,
        show_progress: bool = False,
    ) -> None:
        self.options, self.balanced, self.show_progress = options, balanced, show_progress
        names = coupled or ("", "")
        self.finding, self.confounder = options.finding or names[0], options.confounder or names[1]

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a pair that is not named or too rare, a split without pictures, and missing weights."""
        if not self.finding or not self.confounder:
            raise UserError(
                "It is not known which finding and confounder are meant: give --shortcut.finding and --shortcut.confounder."
            )
        if self.finding.lower() == self.confounder.lower():
            raise UserError(f"Finding and confounder are both {self.finding!r}: name two.")
        if problems := missing_extractors(self.options.features):
            raise UserError(problems[0])
        where = f"The split {split.split!r} of {split.folder}"
        for half in self.halves(split):
            for name in (self.finding, self.confounder):
                check_concept(name, flags_of(split, half, name), f"Half of {where[0].lower()}{where[1:]}")
        stored_images(split)([0])

    def halves(self, split: LatentShardsDataset) -> tuple[list[int], list[int]]:
        """Images that teach, and images that are edited and judged; those of a patient stay together."""
        who = [str(split.metadata(index)["patient_id"] or key) for index, key in enumerate(split.keys)]
        draws = {name: float(generator(self.options.seed, "shortcut half", name).random()) for name in set(who)}
        first = set(sorted(draws, key=lambda name: draws[name])[: len(draws) // 2])
        taught = [index for index, name in enumerate(who) if name in first]
        return taught, [index for index, name in enumerate(who) if name not in first]

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net evaluations of one run, of both models."""
        images = min(self.options.samples, len(self.halves(split)[1]))
        return images * sum(self._cost_of(one) for one in (model, self.balanced) if one is not None)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """The tables of the module's head; figures ``index`` with its ends, ``leak_*``, ``moved_*`` and the scorers' worth.

        Raises:
            UserError: as :meth:`check`; the models do not fit together; results of other settings are in the way.
        """
        self.check(split)
        if self.balanced is not None and self.balanced.latent_shape != model.latent_shape:
            raise UserError("The two models draw pictures of different sizes: compare models of one configuration.")
        taught, judged = self.halves(split)
        scorers, worth = self._taught(model, split, taught, judged)
        edited = judged[: self.options.samples]
        rows: list[Row] = [_row("scorers", name, value, n=len(judged)) for name, value in worth._asdict().items()]
        each: list[Row] = []
        of: dict[str, Moves] = {}
        for name, one in ((BIASED, model), (BALANCED, self.balanced)):
            if one is None:
                continue
            entries, told = self._entries(name, one, split, taught, edited, scorers, out, ranks)
            of[name] = Moves(
                [split.keys[index] for index in edited],
                np.array([entry["own"][1] - entry["own"][0] for entry in entries]),
                np.array([entry["other"][1] - entry["other"][0] for entry in entries]),
            )
            rows += self._rows(name, of[name], told, entries)
            each += [
                {"of": name, "key": entry["address"], "odd": entry["odd"]}
                | {
                    f"{side}_{end}": entry[side][place]
                    for side in ("own", "other")
                    for place, end in enumerate(("down", "up"))
                }
                for entry in entries
            ]
        if len(of) == 2:
            index = shortcut_index(of[BIASED], of[BALANCED], (self.options.seed,))
            rows.append(_row("index", "index", *index, n=len(edited)))
        figures = {
            f"{row['figure']}{end}" if row["of"] == "index" else f"{row['figure']}_{row['of']}{end}": float(value)
            for row in rows
            for end, value in (("", row["value"]), ("_low", row["low"]), ("_high", row["high"]))
            if value is not None
        }
        pair = {"finding": self.finding, "confounder": self.confounder}
        named = Table([{**pair, **row} for row in rows], FIRST)
        return Result(figures, {"shortcut": named, "shortcut_images": Table(each, EACH)})

    # ---- parts --------------------------------------------------------------------------------------------------

    def _by(self, model: LatentDiffusion) -> str:
        return (
            ("prototypes" if isinstance(model, Patronus) else "words") if self.options.by == "auto" else self.options.by
        )

    def _cost_of(self, model: LatentDiffusion) -> float:
        if self._by(model) == "prototypes":
            return prototype_cost(self.options.steps)
        return 2.0 * (self.options.sampling or model.sampling).forward_passes

    def _way(self, model: LatentDiffusion, split: LatentShardsDataset, taught: Sequence[int]) -> Way:
        options = self.options
        if self._by(model) == "prototypes":
            pair = (self.finding, self.confounder)
            edit = options.top if options.edit == "top" else None
            return ByPrototypes(patronus(model), split, taught, pair, options.steps, edit, options.scale, options.seed)
        if isinstance(model, Patronus) and not model.reads_text:
            raise UserError("This model reads no text: set --shortcut.by prototypes.")
        return ByWords(model, split, taught, self.finding, options.sampling, options.seed)

    def _extractor(self, model: LatentDiffusion) -> dict[str, Extractor]:
        return {name: build_extractor(name, path, model.device) for name, path in self.options.features.items()}

    def _taught(
        self, model: LatentDiffusion, split: LatentShardsDataset, taught: Sequence[int], judged: Sequence[int]
    ) -> tuple[tuple[ConceptScorer, ConceptScorer], Quality]:
        """Scorers of finding and confounder, and what they are worth on the half that taught neither."""
        extractors, size = self._extractor(model), self.options.batch_size
        found = measure(
            extractors, stored_images(split), [*taught, *judged], model.device, size, "real images", self.show_progress
        )
        features = next(iter(found.values())).double().numpy()  # (N, D)
        flags = [flags_of(split, [*taught, *judged], one) for one in self._names]
        number = len(taught)
        scorers = (teach(features[:number], flags[0][:number]), teach(features[:number], flags[1][:number]))
        scores = [one.scores(features[number:]) for one in scorers]
        return scorers, quality(scores[0], scores[1], flags[0][number:], flags[1][number:])

    @property
    def _names(self) -> tuple[str, str]:
        return self.finding, self.confounder

    def _entries(
        self,
        name: str,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        taught: Sequence[int],
        edited: Sequence[int],
        scorers: tuple[ConceptScorer, ConceptScorer],
        out: Path | None,
        ranks: Ranks,
    ) -> tuple[list[Entry], str]:
        """One entry an image, in order, and what was edited: what the ledger does not remember is drawn and scored."""
        options = self.options
        about = {one: value for one, value in asdict(options).items() if one not in ("samples", "features")}
        about |= {"finding": self.finding, "confounder": self.confounder, "taught": len(taught)}
        about |= {"features": [extractor_identity(*one) for one in options.features.items()]}
        ledger: Ledger[Entry] = open_ledger(out, f"shortcut_{name}.jsonl", model, split, about, Entry)
        made = {split.keys[index]: sample_digest(split, index) for index in edited}
        extractor = next(iter(self._extractor(model).values()))

        def valid(entries: Sequence[Entry]) -> dict[str, Entry]:
            return {one["address"]: one for one in entries if one["made"] == made.get(one["address"])}

        with undisturbed(model), model.weights(options.ema):
            way = self._way(model, split, taught)
            if isinstance(way, ByPrototypes) and not way.prototypes:
                return [], "no prototype grows with it"
            with ledger:
                missing = ranks.share([index for index in edited if split.keys[index] not in valid(ledger.entries)])
                shown = self.show_progress and ranks.is_first
                with progress_bar(len(missing), "image", f"edits, {name} model", shown) as bar:
                    for start in range(0, len(missing), options.batch_size):
                        part = missing[start : start + options.batch_size]
                        for entry in _scored(way, split, part, made, extractor, scorers):
                            ledger.add(entry)
                        bar.update(len(part))
                found = valid(ranks.gather(ledger.entries))
        return [found[split.keys[index]] for index in edited], way.told

    def _rows(self, name: str, moves: Moves, told: str, entries: Sequence[Entry]) -> list[Row]:
        address, odd = (self.options.seed,), [one["odd"] for one in entries if one["odd"] is not None]
        none = Figure(math.nan, math.nan, math.nan)
        parts = (moved(moves, address), leak_of(moves, address)) if entries else (none, none)
        rows = [
            _row(name, figure, *part, n=len(entries), edited=told)
            for figure, part in zip(("moved", "leak"), parts, strict=True)
        ]
        return rows + ([_row(name, "odd", float(np.median(odd)), n=len(odd), edited=told)] if odd else [])


def _scored(
    way: Way,
    split: LatentShardsDataset,
    part: Sequence[int],
    made: Mapping[str, str],
    extractor: Extractor,
    scorers: tuple[ConceptScorer, ConceptScorer],
) -> list[Entry]:
    """The entries of a batch of images."""
    pictures = way.draw(part)
    device = way.model.device
    seen = [extractor(pixels(one).to(device)).double().cpu().numpy() for one in (pictures.down, pictures.up)]
    own, other = ([scorer.scores(features) for features in seen] for scorer in scorers)
    return [
        {
            "address": split.keys[index],
            "made": made[split.keys[index]],
            "own": [float(one[place]) for one in own],
            "other": [float(one[place]) for one in other],
            "odd": float(pictures.odd[place]) if np.isfinite(pictures.odd[place]) else None,
        }
        for place, index in enumerate(part)
    ]


def _row(of: str, figure: str, value: float, low: float = math.nan, high: float = math.nan, **more: Value) -> Row:
    known = {
        name: number if math.isfinite(number) else None
        for name, number in (("value", value), ("low", low), ("high", high))
    }
    return {"of": of, "figure": figure, **known, **more}
