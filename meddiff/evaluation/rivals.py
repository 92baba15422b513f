"""Rival maps: every published way to read a place out of the same model, on the same images and phrases, with its price.

=====================  ==========================================================================================
preset                 whose words, what becomes of their maps
=====================  ==========================================================================================
``words``              the suite's own: the finding's words, all layers (:mod:`meddiff.evaluation.grounding`)
``layers``             the same over layers that phrases about other images chose (nested halves)
``lexical``            all content words; ``lexical_first``: the first token of each
``concept_*``          the finding beside the image's own phrase: ``append``, ``substitute``, ``output``
``bbm``                content words of the real image merged with those of a drawn one; ``bbm_elementwise``
``ldm_inversion``      all words along the image's inversion, smoothed and cut by Otsu; ``ldm_inversion_uncut``
``biovil_t``           no diffusion model: one that was trained to ground, where its files are given
=====================  ==========================================================================================

Tables: ``rivals``, a row a preset or control; ``rival_scores``, a row a phrase of each; ``rival_layers``, which layers each
half chose and what they are worth on the other. Source: own; of the presets, the modules that make them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from meddiff.attribution.grounding_pass import paper_timesteps
from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.draws import generator
from meddiff.common.progress import Bar, progress_bar
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.gain import Elsewhere, absent_findings, other_places
from meddiff.evaluation.ledger import Ledger, open_ledger
from meddiff.evaluation.measurement import Result, Row, Table, Value
from meddiff.evaluation.priors import usual_place
from meddiff.evaluation.provenance import sample_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.rival_baseline import Baseline
from meddiff.evaluation.rival_maps import Answer, Asking, ChosenLayers, ConceptMaps, Maker, Settings, WordMaps
from meddiff.evaluation.rival_options import BASELINE, RivalsOptions
from meddiff.evaluation.rival_protocols import InvertedMaps, Merged
from meddiff.evaluation.rival_scores import (
    FIRST,
    SCORED,
    Entry,
    Planted,
    Scores,
    blind,
    figures,
    phrase_row,
    score,
    summary_row,
)
from meddiff.evaluation.samples import GroundingSample, evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import resize_maps
from meddiff.metrics.functional.layer_contrast import Contrast, contrast_of, greedy_subset, mean_cnr, subset_weights
from meddiff.metrics.statistics import Floats
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

LAYERS = ("half", "part", "pixels", "layers", "chosen", "held_out_cnr", "n")
#: A sample, and the one whose finding it lacks; None where there is none.
Pair = tuple[GroundingSample, GroundingSample | None]


class Rivals:
    """Every preset on the same phrases.

    Args:
        options: what is measured.
        train: split of training, where the usual places are counted; None counts them in the boxes of the split.
        show_progress: draw a progress bar.
    """

    def __init__(
        self,
        options: RivalsOptions | None = None,
        train: LatentShardsDataset | None = None,
        show_progress: bool = False,
    ) -> None:
        self.options, self.train, self.show_progress = options or RivalsOptions(), train, show_progress
        self.settings = Settings(paper_timesteps(self.options.timesteps), self.options.seed, self.options.batch_size)
        self.makers()

    def makers(self) -> list[Maker]:
        """What makes the maps that are asked for, but for ``layers``, whose layers are chosen by the maps of ``words``.

        Raises:
            UserError: a number of steps that cannot be.
        """
        wanted, options = set(self.options.presets), self.options
        known: list[Maker] = [ConceptMaps(self.settings, mode) for mode in ("append", "substitute", "output")]
        known.append(Merged(self.settings, options.bbm_steps, options.bbm_guidance))
        known.append(InvertedMaps(self.settings, options.inversion_steps))
        return [WordMaps(self.settings), *(one for one in known if wanted & set(one.presets))]

    def pairs(self, split: LatentShardsDataset) -> list[Pair]:
        """Every phrase, and one that asks its image for what it lacks.

        Raises:
            UserError: nothing to ground.
        """
        samples = grounding_samples(split, list(QUERY_WORDS), self.options.samples, self.options.seed)[0]
        absent = {id(one): other for one, other in absent_findings(split, samples)}
        return [(one, absent.get(id(one))) for one in samples]

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a split with nothing to ground, and a folder of a baseline that cannot be read."""
        self.pairs(split)
        self._baseline(split)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net evaluations of one run."""
        pairs = self.pairs(split)
        counts = len(pairs), sum(other is not None for _, other in pairs), len({one.index for one, _ in pairs})
        found = sum(maker.cost(*counts) for maker in self.makers())
        return found + (WordMaps(self.settings).cost(*counts) if "layers" in self.options.presets else 0.0)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """The tables of the module's head.

        Raises:
            UserError: as :meth:`check`, a text encoder or latents that a preset cannot be made of, or results of other settings
                in the way.
        """
        pairs, options = self.pairs(split), self.options
        samples = [one for one, _ in pairs]
        elsewhere = other_places(split, samples)
        about = {name: value for name, value in asdict(options).items() if name not in ("presets", "samples", BASELINE)}
        ledger: Ledger[Entry] = open_ledger(out, "rivals.jsonl", model, split, about, Entry)
        makers: list[Maker] = [
            *self.makers(),
            *self._baseline(split),
            Planted(usual_place(self.train, samples, list(QUERY_WORDS)), options.seed),
        ]
        layers: list[Row] = []
        shown = self.show_progress and ranks.is_first
        bar = progress_bar(int(self.cost(model, split)) // ranks.world, "pass", "rival maps", shown)
        found: list[tuple[Maker, list[Entry]]] = []
        with ledger, bar, undisturbed(model), model.weights(options.ema):
            for maker in makers:
                address = maker.encoders.made if isinstance(maker, Baseline) else ""
                found.append((maker, self._entries(model, split, maker, address, pairs, elsewhere, ledger, ranks, bar)))
            if "layers" in options.presets:
                chosen, layers, address = self._chosen(samples, found[0][1])
                maker = ChosenLayers(self.settings, chosen)
                entries = self._entries(model, split, maker, address, pairs, elsewhere, ledger, ranks, bar)
                found.insert(1, (maker, entries))
        return self._result(samples, elsewhere, found, layers)

    def _baseline(self, split: LatentShardsDataset) -> list[Maker]:
        """The model that was trained to ground, where its files are given."""
        folder = self.options.biovil_t
        return [] if folder is None else [Baseline(Path(folder), split.image)]

    # ---- parts --------------------------------------------------------------------------------------------------

    def _entries(
        self,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        maker: Maker,
        address: str,
        pairs: Sequence[Pair],
        elsewhere: Sequence[Elsewhere],
        ledger: "Ledger[Entry]",
        ranks: Ranks,
        bar: Bar,
    ) -> list[Entry]:
        """One entry a phrase, in order: what the ledger does not remember is made."""
        names = [
            "|".join((maker.name, address, *_texts(one), *(_texts(other) if other else ()))) for one, other in pairs
        ]
        made = [sample_digest(split, one.index) for one, _ in pairs]
        wanted = dict(zip(names, made, strict=True))

        def valid(entries: Sequence[Entry]) -> dict[str, Entry]:
            return {one["address"]: one for one in entries if wanted.get(one["address"]) == one["made"]}

        done = valid(ledger.entries)
        missing = list(ranks.share([place for place, name in enumerate(names) if name not in done]))
        together = max(1, self.options.batch_size // 8)
        for begin in range(0, len(missing), together):
            places = missing[begin : begin + together]
            askings: list[Asking] = []
            for place in places:
                one, other = pairs[place]
                latents = evaluation_latents(split, one.index, self.options.seed)
                askings += [Asking(one, phrase, latents) for phrase in (one, other) if phrase is not None]
            start = time.monotonic()
            answers = iter(maker.answers(model, askings, bar.update))
            seconds = (time.monotonic() - start) / len(askings)
            for place in places:
                own = next(answers)
                absent = next(answers) if pairs[place][1] is not None else Answer({})
                with one_core():
                    entry = _scored(pairs[place][0], own, absent, elsewhere[place], seconds)
                    entry |= {"address": names[place], "made": made[place]}
                    if isinstance(maker, WordMaps) and own.groups is not None:
                        entry |= _contrast(pairs[place][0], own, maker)
                ledger.add(entry)
        entries = valid(ranks.gather(ledger.entries))
        return [entries[name] for name in names]

    def _chosen(
        self, samples: Sequence[GroundingSample], entries: Sequence[Entry]
    ) -> tuple[Callable[[str], tuple[int, ...]], list[Row], str]:
        """Layers for each image, chosen by the images of the other half; the rows that say so; their name in the ledger."""
        half = {one.key: int(generator(self.options.seed, "half of images", one.key).random() < 0.5) for one in samples}
        contrasts: tuple[list[Contrast], list[Contrast]] = ([], [])
        for sample, entry in zip(samples, entries, strict=True):
            moments = (np.array(entry[name], float) for name in ("difference", "noise"))
            contrasts[half[sample.key]].append(Contrast(*moments))  # None is NaN
        groups, counts = entries[0]["groups"], entries[0]["counts"]
        by = {one: greedy_subset(contrasts[1 - one], counts) for one in (0, 1)}  # told of a half: chosen by the other
        rows: list[Row] = []
        for one, chosen in by.items():
            told = mean_cnr(contrasts[one], subset_weights(chosen, counts))
            for place, (part, pixels) in enumerate(groups):
                row: dict[str, Value] = {"half": one, "part": part, "pixels": pixels, "layers": counts[place]}
                row |= {"chosen": float(place in chosen), "held_out_cnr": told if told == told else None}
                rows.append(row | {"n": float(len(contrasts[one]))})
        return lambda key: by[half[key]], rows, f"{by[0]}{by[1]}"

    def _result(
        self,
        samples: Sequence[GroundingSample],
        elsewhere: Sequence[Elsewhere],
        found: Sequence[tuple[Maker, list[Entry]]],
        layers: Sequence[Row],
    ) -> Result:
        rows: list[Row] = []
        scored: list[Row] = []
        for maker, entries in found:
            seconds = sum(one["seconds"] for one in entries) / len(entries)
            presets = [(name, name, maker.each) for name in maker.presets]
            if maker.name == "words":
                presets.append(("blind", "words", maker.each))
            for preset, of, each in presets:
                if maker.name not in ("controls", BASELINE) and preset not in (*self.options.presets, "blind"):
                    continue
                some: list[tuple[GroundingSample, Scores, Elsewhere]] = []
                for sample, place, entry in zip(samples, elsewhere, entries, strict=True):
                    if of in entry["scores"]:
                        scores = entry["scores"][of]
                        some.append((sample, blind(scores) if preset == "blind" else scores, place))
                rows.append(summary_row(preset, some, each, seconds, len(samples)))
                scored += [phrase_row(sample, preset, scores) for sample, scores, _ in some]
        order = {"own": 0, "rival": 1, "baseline": 2, "control": 3}
        rows.sort(key=lambda row: order[str(row["kind"])])
        tables = {"rivals": Table(rows, FIRST), "rival_scores": Table(scored, SCORED)}
        if layers:
            tables["rival_layers"] = Table(layers, LAYERS)
        return Result(figures(rows), tables)


def _texts(sample: GroundingSample) -> tuple[str, str, str]:
    return sample.key, sample.label, sample.phrase


def _scored(sample: GroundingSample, own: Answer, absent: Answer, elsewhere: Elsewhere, seconds: float) -> Entry:
    found = {name: score(sample, heat, absent.maps.get(name), elsewhere) for name, heat in own.maps.items()}
    return Entry(address="", made="", scores=found, seconds=seconds)


def _contrast(sample: GroundingSample, own: Answer, maker: WordMaps) -> Entry:
    """What the search for layers needs of a phrase."""
    assert own.groups is not None
    found = contrast_of(resize_maps(own.groups, sample.size), torch.from_numpy(sample.box_mask()))
    plain: dict[str, object] = {"difference": _plain(found.difference), "noise": [_plain(row) for row in found.noise]}
    plain |= {"groups": [[group.part, group.pixels] for group in maker.layer_groups], "counts": maker.counts}
    return plain  # type: ignore[return-value]


def _plain(values: Floats) -> list[float | None]:
    """JSON knows no NaN."""
    return [float(one) if np.isfinite(one) else None for one in values]
