"""Do the words still point at the right place? Phrase grounding by cross-attention, on the boxes of a held-out split.

The maps are those of the paper: real latents noised at its timesteps, one conditional forward each, all cross-attention
layers and heads averaged, the words that name the class. Every phrase, and if asked for every impression that names a
class of its image, is one item of the pass; maps of the query words, of every single word and of start and end token
come out of the same forward passes.
Source: Dombrowski et al. 2024, Tables 1, 3, 6, 7; spec/tradeoff.md sections 5 and 6; one pass for all own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NotRequired

import torch
from torch import Tensor
from typing_extensions import TypedDict

from meddiff.attribution.grounding_pass import (
    GroundingItem,
    TimestepMap,
    grounding_pass,
    mean_over_timesteps,
    paper_timesteps,
)
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.common.progress import progress_bar
from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.gain import Scored, absent_findings, gains_during_training, other_places, score_elsewhere
from meddiff.evaluation.grounding_scores import grounding_summary, score_sample, unscored
from meddiff.evaluation.grounding_texts import EOS, PAPER, SOS, STANDARD, Item, impressions, text_item
from meddiff.evaluation.ledger import Ledger, open_ledger
from meddiff.evaluation.measurement import Result, Row, Table, Value
from meddiff.evaluation.provenance import sample_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import Exclusion, GroundingSample, balanced, evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import contrast_to_noise_ratio, resize_maps, score_grid_maps
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.text.tokens import TextTokenizer
from meddiff.shards.dataset import LatentShardsDataset

#: Columns that every row has.
FIRST = ("key", "class", "phrase", "words", "cnr", "auroc", "top1", "miou")


@dataclass(frozen=True)
class GroundingOptions:
    """Options of grounding, during training and of ``lightning evaluate grounding``."""

    split: str = "grounding"
    """Split of the shards."""
    samples: int | None = None
    """Number of phrases, balanced over classes; null takes all."""
    timesteps: int = 40
    """How many of the paper's 40 timesteps."""
    batch_size: int = 64
    """(text, timestep) pairs per forward pass; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of noise and subset."""
    query_words: dict[str, list[str]] | None = None
    """Class -> words that ask for it; null takes the paper's."""
    full: bool = False
    """Also the impressions that name a class (Table 7), every word by itself (Table 6) and every definition of the scores;
    false takes the phrases and the usual four scores."""

    def __post_init__(self) -> None:
        check_ranges("grounding", self, samples=COUNT, timesteps=Range(1, 40, whole=True), batch_size=COUNT)

    @property
    def queries(self) -> dict[str, Sequence[str]]:
        """Class -> words that ask for it."""
        return dict(self.query_words or QUERY_WORDS)


class Entry(TypedDict):
    """One line of the ledger."""

    address: str
    made: str  # from which stored sample
    kind: str
    row: dict[str, Value]
    words: list[list[Value]]  # (word, variant, CNR)
    elsewhere: NotRequired[dict[str, list[Value]]]  # control -> (CNR at its own place, there), where any was asked for


class Grounding:
    """CNR, pixel AUROC, Top-1 and mIoU of word maps.

    Args:
        options: what is measured.
        show_progress: draw a progress bar.
        gain: measure the grounding gain under the controls that need no other split, too, with so many phrases that are asked
            for an absent finding (balanced over classes; a pass over them more); 0 measures none.
    """

    def __init__(
        self, options: GroundingOptions = GroundingOptions(), show_progress: bool = False, gain: int = 0
    ) -> None:
        self.options, self.show_progress, self.gain = options, show_progress, gain
        self.steps = paper_timesteps(options.timesteps)
        self._samples: dict[tuple[Path, str], tuple[list[GroundingSample], list[Exclusion]]] = {}

    def samples(self, split: LatentShardsDataset) -> tuple[list[GroundingSample], list[Exclusion]]:
        """The phrases that can be scored, and those that cannot.

        Raises:
            UserError: nothing to ground.
        """
        options, place = self.options, (split.folder, split.split)
        if place not in self._samples:  # the whole split's metadata are read for it
            self._samples[place] = grounding_samples(split, list(options.queries), options.samples, options.seed)
        return self._samples[place]

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a split with nothing to ground."""
        self.samples(split)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run."""
        samples = self.samples(split)[0]
        absent = absent_findings(split, samples, balanced(samples, self.gain)) if self.gain else []
        return float((len(self.items(model, split)) + len(absent)) * len(self.steps))

    def items(self, model: LatentDiffusion, split: LatentShardsDataset) -> list[Item]:
        """The texts that are grounded, phrases first."""
        samples, _ = self.samples(split)
        queries, full, tokenizer = self.options.queries, self.options.full, model.text_encoder.tokenizer
        items = [text_item(tokenizer, sample, queries, "phrase", full) for sample in samples]
        for item, places in zip(items, other_places(split, samples) if self.gain else (), strict=False):
            item.elsewhere = places
        if full:
            texts = impressions(split, samples, queries)
            items += [text_item(tokenizer, one, queries, "impression", full) for one in texts]
        return items

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Tables ``grounding`` and, when full, ``impressions``; averages of the latter are under ``impressions/``."""
        entries = self.entries(model, split, out, ranks)
        summary: dict[str, float] = {}
        tables: dict[str, Table] = {}
        _, excluded = self.samples(split)
        lost: list[Row] = [{**asdict(one), "class": one.label} for one in excluded]
        first = ("key", "class", "phrase", "model", "images", "seed", "words", "cut") if self.options.full else FIRST
        kinds = (("phrase", "grounding"), ("impression", "impressions"))
        for kind, name in kinds if self.options.full else kinds[:1]:
            rows = [entry["row"] for entry in entries if entry["kind"] == kind]
            tables[name] = Table(rows, first)
            lost += unscored(rows)
            prefix = "" if kind == "phrase" else "impressions/"
            if rows:
                summary |= {f"{prefix}{key}": value for key, value in grounding_summary(rows).items()}
        tables["excluded"] = Table(lost, ("key", "class", "phrase", "reason"), only=True)
        if self.gain:
            scored = [
                Scored(item.sample, item.elsewhere, entry["row"]["cnr"], entry.get("elsewhere", {}))
                for item, entry in zip(self.items(model, split), entries, strict=True)
                if item.kind == "phrase"
            ]
            gains = gains_during_training(
                model, split, scored, self.gain, self.options, self.steps, ranks, self.show_progress
            )
            tables |= gains.tables()
            summary |= gains.figures()
        return Result(summary, tables)

    def entries(
        self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks
    ) -> list[Entry]:
        """One entry an item, in order: ground what ``out/grounding.jsonl`` does not remember."""
        items = self.items(model, split)
        ledger: Ledger[Entry] = open_ledger(out, "grounding.jsonl", model, split, asdict(self.options), Entry)
        made = {item.address: sample_digest(split, item.sample.index) for item in items}

        def valid(entries: Sequence[Entry]) -> dict[str, Entry]:
            return {entry["address"]: entry for entry in entries if entry.get("made") == made.get(entry["address"])}

        with ledger:
            done = valid(ledger.entries)
            missing = [item for item in items if item.address not in done]
            passes = len(missing) * len(self.steps) // ranks.world
            with progress_bar(passes, "pass", "grounding", self.show_progress and ranks.is_first) as bar:
                for entry in ground_shared(model, split, missing, self.options, ranks, bar.update):
                    ledger.add(entry)
            found = valid(ranks.gather(ledger.entries))
        return [found[item.address] for item in items]


def ground_items(
    model: LatentDiffusion,
    split: LatentShardsDataset,
    items: Sequence[Item],
    options: GroundingOptions,
    on_progress: Callable[[int], object] | None = None,
) -> Iterator[Entry]:
    """The pass over ``items``; an item's entry comes as soon as its maps are whole."""
    return ground_shared(model, split, items, options, Ranks(), on_progress)


def ground_shared(
    model: LatentDiffusion,
    split: LatentShardsDataset,
    items: Sequence[Item],
    options: GroundingOptions,
    ranks: Ranks,
    on_progress: Callable[[int], object] | None = None,
) -> Iterator[Entry]:
    """This rank's entries of ``items``: the ranks make the same number of forward passes, but for one.

    Whole items are dealt out. Of those that are left, fewer than there are ranks, each rank takes some timesteps; their
    maps are exchanged and averaged in the order of the timesteps, so that an item's score does not depend on the ranks.
    """
    seed, steps = options.seed, paper_timesteps(options.timesteps)
    whole = len(items) // ranks.world * ranks.world
    mine, left = ranks.share(items[:whole]), items[whole:]

    def maps_of(some: Sequence[Item], pairs: Sequence[tuple[int, int]]) -> Iterator[TimestepMap]:
        latents = {one.sample.index: evaluation_latents(split, one.sample.index, seed) for one in some}
        wanted = [
            GroundingItem(one.sample.key, latents[one.sample.index], one.sample.phrase, one.groups) for one in some
        ]
        return grounding_pass(model, wanted, steps, seed, options.batch_size, on_progress=on_progress, pairs=pairs)

    def entries(some: Sequence[Item], maps: Iterable[TimestepMap]) -> Iterator[Entry]:
        for i, heat in mean_over_timesteps(maps, len(steps)):  # heat (K, h, w)
            with one_core():
                entry = score_item(some[i], heat, split, model.text_encoder.tokenizer, options.queries)
            yield entry

    with undisturbed(model), model.weights(options.ema):
        yield from entries(mine, maps_of(mine, [(i, t) for i in range(len(mine)) for t in steps]))
        if left:
            pairs = [(i, t) for i in range(len(left)) for t in steps]
            parts = ranks.gather(list(maps_of(left, ranks.share(pairs))))
            own = sorted(
                (part for part in parts if part.item == ranks.rank), key=lambda part: steps.index(part.timestep)
            )
            yield from entries(left, own)


def score_item(
    item: Item,
    heat: Tensor,
    split: LatentShardsDataset,
    tokenizer: TextTokenizer,
    queries: dict[str, Sequence[str]],
) -> Entry:
    """One line of the ledger: the scores of the text's map (K, h, w), and the CNR of each of its words."""
    sample = item.sample
    query = query_tokens(tokenizer, sample.phrase, queries[sample.label])
    row = score_sample(sample, query, heat[[STANDARD, EOS]], split.masks(sample.index))
    words: list[list[Value]] = []
    if len(heat) > SOS:
        box = torch.from_numpy(sample.box_mask())
        extra = score_grid_maps(heat[[STANDARD]], box[None], [torch.from_numpy(sample.boxes)])
        row = {**{name: float(value[0]) for name, value in extra.items()}, **row}
        full = resize_maps(heat, sample.size)  # (K, H, W)
        cnr = contrast_to_noise_ratio(full, box.expand(len(full), -1, -1)).tolist()
        # the paper counts a word twice that matches two query words
        row |= {"cnr_paper": cnr[PAPER], "sos_cnr": cnr[SOS]}
        words = [[word, variant, value] for (word, variant), value in zip(item.names, cnr[SOS + 1 :], strict=True)]
        if item.kind == "phrase":
            start_name, end_name = tokenizer.names
            words += [[start_name, "all", cnr[SOS]]] if tokenizer.starts else []
            words += [[end_name, "all", cnr[EOS]]]
    made = sample_digest(split, sample.index)
    entry: Entry = {"address": item.address, "made": made, "kind": item.kind, "row": _plain(row), "words": words}
    if item.elsewhere:
        word = resize_maps(heat[[STANDARD]], sample.size)[0]  # (H, W)
        entry["elsewhere"] = {name: list(pair) for name, pair in score_elsewhere(sample, word, item.elsewhere).items()}
    return entry


def _plain(row: dict[str, Value]) -> dict[str, Value]:
    """JSON knows no NaN: None stands for it."""
    return {name: None if isinstance(value, float) and value != value else value for name, value in row.items()}
