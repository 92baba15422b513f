"""Where do the maps of each tool point, timestep by timestep? Grounding of visual analysis, with its controls.

Every tool of :mod:`meddiff.evaluation.saliency_tools` is asked by the phrases of a split about their images, noised to some of
the paper's timesteps, and by a phrase about a finding that the image does not have. All maps are scored alike
(:mod:`meddiff.evaluation.saliency_scores`). Tables:

- ``saliency``: a figure a tool, layer, class and timestep, with its interval over images
- ``saliency_best``: which tool grounds best at each timestep
- ``saliency_relevance``: shares of kinds of tokens in relevance, by timestep
- ``saliency_when``: the timestep at which each curve is highest, and from which noise on the place is known

Source: own; the question is that of Park, Ju and Lee (2024), asked where the place of what is drawn is known.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

from meddiff.attribution.grounding_pass import paper_timesteps
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.common.progress import progress_bar
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.gain import absent_findings, other_places
from meddiff.evaluation.ledger import Ledger, open_ledger
from meddiff.evaluation.measurement import Result, Table
from meddiff.evaluation.provenance import sample_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.saliency_answers import (
    BEST,
    SHARES,
    WHEN,
    best_rows,
    headline,
    prior_rows,
    share_rows,
    when_rows,
)
from meddiff.evaluation.saliency_maps import MAPS, KeptMaps
from meddiff.evaluation.saliency_scores import (
    FIRST,
    Entry,
    curve_rows,
    gather_points,
    places_of,
    score_curves,
)
from meddiff.evaluation.saliency_tools import ALL, Answer, Asked, Channel, OnProgress, build_tools
from meddiff.evaluation.saliency_units import UNTRAINED, Beside, SaliencyOptions, Unit
from meddiff.evaluation.samples import GroundingSample, balanced, evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

#: Seconds that an asking takes at most to be timed again.
SHORT = 3.0


class Saliency:
    """Grounding by timestep of every tool.

    Args:
        options: what is measured.
        beside: what it is compared with.
        show_progress: draw a progress bar.
        go_on: asked before every unit whether there is still time; units that are left out are counted in ``left_out``, and a
            later call goes on with them.

    Attributes:
        kept: after a run, the maps of the phrases that are shown.
    """

    def __init__(
        self,
        options: SaliencyOptions,
        beside: Beside | None = None,
        show_progress: bool = False,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self.options, self.beside, self.show_progress, self.go_on = options, beside or Beside(), show_progress, go_on
        self.steps = paper_timesteps(options.timesteps)
        self.left_out = 0
        self.kept = KeptMaps(None)

    @cached_property
    def slow_steps(self) -> list[int]:
        """Those of all timesteps that slow tools are asked at."""
        number, steps = min(self.options.slow_timesteps, len(self.steps)), self.steps
        return [steps[(2 * part + 1) * len(steps) // (2 * number)] for part in range(number)]

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a split with nothing to ground."""
        self.samples(split)

    def samples(self, split: LatentShardsDataset) -> list[GroundingSample]:
        """The phrases that are asked."""
        return grounding_samples(split, list(QUERY_WORDS), self.options.samples, self.options.seed)[0]

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net evaluations of one run, with those of the control of random weights."""
        return sum(unit.cost for unit in self.units(split))

    def units(self, split: LatentShardsDataset) -> list[Unit]:
        """All there is to do: quick tools first, phrase by phrase."""
        samples, options = self.samples(split), self.options
        few = balanced(samples, min(options.slow_samples, len(samples)), options.seed)
        shown = (
            {id(one) for one in balanced(few, min(options.shown, len(few)), options.seed)} if options.shown else set()
        )
        absent = {id(one): other for one, other in absent_findings(split, samples)}
        found = []
        for tool in sorted(build_tools(options.tools, options.paper), key=lambda one: one.slow):
            steps = self.slow_steps if tool.slow else self.steps
            for sample in few if tool.slow else samples:
                found.append(Unit(tool.name, tool, sample, absent.get(id(sample)), steps, id(sample) in shown))
            if tool.name == "attention" and self.beside.untrained is not None:
                found += [Unit(UNTRAINED, tool, sample, absent.get(id(sample)), self.steps) for sample in samples]
        return found

    def askings(self, split: LatentShardsDataset) -> dict[str, int]:
        """How often each tool, and each control with a model of its own, is asked by a phrase."""
        return dict(Counter(unit.source for unit in self.units(split)))

    def seconds(self, model: LatentDiffusion, split: LatentShardsDataset) -> dict[str, float]:
        """What one phrase takes of each tool here and now, with its scores: asked, twice if that is quick, and thrown away."""
        found: dict[str, float] = {}
        for unit in self.units(split):
            if unit.source not in found:
                quiet, times = replace(unit, shown=False), list[float]()
                while not times or (
                    len(times) < 2 and times[0] < SHORT
                ):  # the first one also makes what later ones find
                    start = time.monotonic()
                    list(self._made(model, split, [quiet], {unit.sample.index: ""}, lambda number: None))
                    times.append(time.monotonic() - start)
                found[unit.source] = min(times)
        return found

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """The tables of the module's head.

        Raises:
            UserError: results of other settings are in the way.
        """
        units = self.units(split)
        self.kept = KeptMaps(None if out is None else out / MAPS)
        entries = self._entries(model, split, units, out, ranks)
        points = gather_points(entries)
        asked = {id(unit.sample): unit.sample for unit in units}
        rows = [*curve_rows(points), *prior_rows(self.beside.train, list(asked.values()))]
        tools = {name: some for name, some in points.items() if name[0] not in (UNTRAINED, "end_token")}
        tables = {
            "saliency": Table(rows, FIRST),
            "saliency_best": Table(best_rows(tools), BEST),
            "saliency_when": Table(when_rows(rows), WHEN),
            "saliency_relevance": Table(share_rows(entries), SHARES),
        }
        return Result(headline(rows), tables)

    # ---- parts --------------------------------------------------------------------------------------------------

    def _entries(
        self, model: LatentDiffusion, split: LatentShardsDataset, units: Sequence[Unit], out: Path | None, ranks: Ranks
    ) -> list[Entry]:
        """One entry a unit: what the ledger does not remember is made, as long as there is time."""
        options = self.options
        # which phrases, how many and by which tools changes no entry
        about = {name: value for name, value in asdict(options).items() if name in ("seed", "split", "paper")}
        ledger: Ledger[Entry] = open_ledger(out, "saliency.jsonl", model, split, about, Entry)
        digests = {unit.sample.index: sample_digest(split, unit.sample.index) for unit in units}
        drawn = {unit.address for unit in units if unit.shown}

        def valid(entries: Sequence[Entry]) -> dict[str, Entry]:
            wanted = {unit.address: (unit.timesteps, digests[unit.sample.index]) for unit in units}
            found = {
                one["address"]: one for one in entries if wanted.get(one["address"]) == (one["timesteps"], one["made"])
            }
            return {name: one for name, one in found.items() if name not in drawn or self.kept.has(name)}

        with ledger:
            done = valid(ledger.entries)
            missing = ranks.share([unit for unit in units if unit.address not in done])
            passes = int(sum(unit.cost for unit in missing))
            shown = self.show_progress and ranks.is_first
            with progress_bar(passes, "pass", "maps by timestep", shown) as bar:
                for entry in self._made(model, split, missing, digests, bar.update):
                    ledger.add(entry)
            found = valid(ranks.gather(ledger.entries))
        self.kept.gather(ranks)
        self.left_out = sum(unit.address not in found for unit in units)
        return [found[unit.address] for unit in units if unit.address in found]

    def _made(
        self,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        units: Sequence[Unit],
        digests: dict[int, str],
        told: OnProgress,
    ) -> Iterator[Entry]:
        samples = self.samples(split)
        names = [(one.key, one.label, one.phrase) for one in samples]
        elsewhere = dict(zip(names, other_places(split, samples), strict=True))
        for unit in units:
            if not self.go_on():
                return
            sample = unit.sample
            asked_of = self.beside.untrained if unit.source == UNTRAINED else model
            assert asked_of is not None  # units() makes none without it
            answer = self._answer(asked_of, split, unit, sample, told)
            absent = self._answer(asked_of, split, unit, unit.absent, told)
            if unit.shown:
                self.kept.add(unit.address, unit.timesteps, answer.maps)
            there = elsewhere[sample.key, sample.label, sample.phrase]
            with one_core():
                places = places_of(sample, there, split.masks(sample.index))
                curves = score_curves(sample, answer.maps, absent.maps, places)
            yield {
                "address": unit.address,
                "made": digests[sample.index],
                "source": unit.source,
                "index": sample.index,
                "key": sample.key,
                "label": sample.label,
                "timesteps": unit.timesteps,
                "partners": {name: index for name, (_, index) in there.items()},
                "curves": curves,
                "shares": answer.shares,
            }

    def _answer(
        self,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        unit: Unit,
        by: GroundingSample | None,
        told: OnProgress,
    ) -> Answer:
        """What a unit's tool says of its image, asked by the phrase of ``by``; none where its words were cut off."""
        if by is None:
            return Answer({})
        query = query_tokens(model.text_encoder.tokenizer, by.phrase, QUERY_WORDS[by.label])
        if not query.weights.any():
            return Answer({})
        seed = self.options.seed
        latents = evaluation_latents(split, unit.sample.index, seed)
        asked = Asked(
            *(unit.sample.key, latents, by.phrase, query, by.label, unit.sample.phrase),
            *(seed, self.options.batch_size),
        )
        with undisturbed(model):
            answer = unit.tool.maps(model, asked, unit.timesteps, told)
        if unit.source != UNTRAINED:
            return answer
        return Answer({Channel(UNTRAINED): answer.maps[Channel(unit.tool.name, ALL)]})
