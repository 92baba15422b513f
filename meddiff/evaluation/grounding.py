"""Tables 1, 3, 6 and 7 from one pass over the attention maps of a grounding split.

Every phrase, and every impression that names a class of its image, is one item of the pass; the maps of the query
words, of every single word and of start and end token come out of the same forward passes.
Source: Dombrowski et al. 2024, Tables 1, 3, 6, 7; spec/tradeoff.md sections 5 and 6; one pass for all own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from callbacks.grounding import grounding_summary, score_sample
from meddiff.attribution.grounding_pass import GroundingItem, ground, paper_timesteps
from meddiff.attribution.naming import names_class
from meddiff.attribution.words import QUERY_WORDS, align_words, query_tokens, special_tokens
from meddiff.evaluation.ledger import Ledger
from meddiff.evaluation.samples import Exclusion, GroundingSample, evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import contrast_to_noise_ratio, resize_maps, score_grid_maps
from meddiff.runs.open_run import Subject
from meddiff.runs.tables import write_table
from meddiff.shards.dataset import LatentShardsDataset

FIRST = ("key", "class", "phrase", "model", "images", "seed", "words", "cut")
#: Rows of the groups matrix before those of the single words.
STANDARD, EOS, PAPER, SOS = range(4)


@dataclass(frozen=True)
class GroundingOptions:
    """Options of ``lightning evaluate grounding`` and ``words``."""

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


@dataclass
class Item:
    """One text about one image, and the rows of its groups matrix."""

    sample: GroundingSample
    kind: str  # "phrase" or "impression"
    groups: Tensor  # (K, 77)
    names: list[tuple[str, str]] = field(default_factory=list)  # (word, variant) of row 4 onwards

    @property
    def address(self) -> str:
        """Name of the item in the ledger."""
        return "|".join((self.kind, self.sample.key, self.sample.label, self.sample.phrase))


def evaluate_grounding(subject: Subject, out: Path, options: GroundingOptions) -> dict[str, float]:
    """Run the pass, or what is left of it, and write ``grounding.csv``, ``impressions.csv``, ``words.csv``.

    Args:
        out: folder of the evaluation; ``grounding.jsonl`` there remembers what is done.

    Returns:
        Averages of the phrases, and of the impressions under ``impressions/``.

    Raises:
        UserError: nothing to ground, or results of other settings are in the way.
    """
    queries = query_words(options)
    dataset = subject.data.dataset(options.split)
    samples, excluded = check_grounding(subject, out, options)
    items = [phrase_item(sample, queries) for sample in samples]
    items += [phrase_item(one, queries, "impression") for one in impressions(dataset, samples, queries)]
    settings = {
        "checkpoint": str(subject.checkpoint.resolve()),
        "shards": str(dataset.folder),
        **{k: v for k, v in asdict(options).items() if k != "batch_size"},
    }
    with Ledger(out / "grounding.jsonl", settings) as ledger:
        done = {entry["address"] for entry in ledger.entries}
        run_pass(subject, dataset, [item for item in items if item.address not in done], options, queries, ledger)
        entries = {entry["address"]: entry for entry in ledger.entries}
    return write_results(subject, out, [entries[item.address] for item in items], excluded)


def query_words(options: GroundingOptions) -> dict[str, Sequence[str]]:
    """Class -> words that ask for it."""
    return dict(options.query_words or QUERY_WORDS)


def check_grounding(
    subject: Subject, out: Path, options: GroundingOptions
) -> tuple[list[GroundingSample], list[Exclusion]]:
    """The phrases that can be scored, and those that cannot.

    Raises:
        UserError: nothing to ground.
    """
    paper_timesteps(options.timesteps)
    dataset = subject.data.dataset(options.split)
    return grounding_samples(dataset, list(query_words(options)), options.samples, options.seed)


def impressions(
    dataset: LatentShardsDataset, samples: Sequence[GroundingSample], queries: dict[str, Sequence[str]]
) -> list[GroundingSample]:
    """The impressions that name a class of ``samples``, each with all boxes of that class in its image (Table 7)."""
    boxes: dict[tuple[int, str], list[Any]] = {}
    first: dict[tuple[int, str], GroundingSample] = {}
    for sample in samples:
        place = (sample.index, sample.label)
        boxes.setdefault(place, []).append(sample.boxes)
        first.setdefault(place, sample)
    found = []
    for place, sample in first.items():
        text = dataset.metadata(sample.index)["impression"]
        if names_class(text, sample.label, queries[sample.label]):
            merged = np.unique(np.concatenate(boxes[place]), axis=0)
            found.append(GroundingSample(sample.index, sample.key, sample.label, text, merged, sample.size))
    return found


def phrase_item(sample: GroundingSample, queries: dict[str, Sequence[str]], kind: str = "phrase") -> Item:
    """The groups of a text: its query words (both presets), end and start token, then (phrases) word by word."""
    text = sample.phrase
    special = special_tokens(text)
    standard = query_tokens(text, queries[sample.label]).weights
    rows = [standard, special["eos"], query_tokens(text, queries[sample.label], "paper").weights, special["sos"]]
    names = []
    for word in align_words(text) if kind == "phrase" else ():
        start, stop = word.kept
        for variant, end in (("first", start + 1), ("all", stop)):
            weights = torch.zeros(len(standard))
            if stop > start:
                weights[start:end] = 1.0 / (end - start)
            rows.append(weights)
            names.append((word.text, variant))
    return Item(sample, kind, torch.stack(rows), names)


def run_pass(
    subject: Subject,
    dataset: LatentShardsDataset,
    items: Sequence[Item],
    options: GroundingOptions,
    queries: dict[str, Sequence[str]],
    ledger: Ledger,
) -> None:
    """Ground ``items`` and enter each into the ledger as soon as its maps are whole."""
    module, steps = subject.module, paper_timesteps(options.timesteps)
    latents = {one.sample.index: evaluation_latents(dataset, one.sample.index, options.seed) for one in items}
    wanted = [GroundingItem(one.sample.key, latents[one.sample.index], one.sample.phrase, one.groups) for one in items]
    bar = tqdm(total=len(items) * len(steps), unit="pass", desc="grounding", disable=not items)
    with bar, undisturbed(module), module.evaluated_weights(options.ema):
        maps = ground(
            module.unet,
            module.encode_texts,
            wanted,
            module.alphas_cumprod,
            steps,
            options.seed,
            options.batch_size,
            on_progress=lambda pairs: bar.update(pairs),
        )
        for i, heat in maps:  # heat (K, h, w)
            ledger.add(score_item(items[i], heat, dataset, queries))


def score_item(
    item: Item, heat: Tensor, dataset: LatentShardsDataset, queries: dict[str, Sequence[str]]
) -> dict[str, Any]:
    """One line of the ledger: all metrics of the text's map, and the CNR of each of its words."""
    sample = item.sample
    query = query_tokens(sample.phrase, queries[sample.label])
    row = score_sample(sample, query, heat[[STANDARD, EOS]], dataset.masks(sample.index))
    box = torch.from_numpy(sample.box_mask())
    extra = score_grid_maps(heat[[STANDARD]], box[None], [torch.from_numpy(sample.boxes)])
    row = {**{name: float(value[0]) for name, value in extra.items()}, **row}
    full = resize_maps(heat, sample.size)  # (K, H, W)
    cnr = contrast_to_noise_ratio(full, box.expand(len(full), -1, -1)).tolist()
    # the paper counts a word twice that matches two query words
    row |= {"cnr_paper": cnr[PAPER], "sos_cnr": cnr[SOS]}
    words = [[word, variant, value] for (word, variant), value in zip(item.names, cnr[4:], strict=True)]
    if item.kind == "phrase":
        words += [["SOS", "all", cnr[SOS]], ["EOS", "all", cnr[EOS]]]
    return {"address": item.address, "kind": item.kind, "row": _plain(row), "words": words}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: None stands for it."""
    return {name: None if isinstance(value, float) and value != value else value for name, value in row.items()}


def write_results(
    subject: Subject, out: Path, entries: Sequence[dict[str, Any]], excluded: Sequence[Exclusion]
) -> dict[str, float]:
    """The CSV files of finished entries, and their averages."""
    who = {"model": subject.name, "images": subject.images, "seed": subject.seed}
    summary: dict[str, float] = {}
    lost = [{**asdict(one), "class": one.label} for one in excluded]
    for kind, name in (("phrase", "grounding"), ("impression", "impressions")):
        rows = [{**entry["row"], **who} for entry in entries if entry["kind"] == kind]
        write_table(out / f"{name}.csv", rows, FIRST)
        lost += [{**row, "reason": "map is constant or not a number"} for row in rows if row["cnr"] is None]
        lost += [{**row, "reason": f"cut off by the context: {row['cut']}"} for row in rows if row["cut"]]
        prefix = "" if kind == "phrase" else "impressions/"
        filled = [{k: float("nan") if v is None else v for k, v in row.items()} for row in rows]
        if filled:
            summary |= {f"{prefix}{key}": value for key, value in grounding_summary(filled).items()}
    words = [
        {"key": entry["row"]["key"], "class": entry["row"]["class"], "word": word, "variant": variant, "cnr": cnr}
        for entry in entries
        for word, variant, cnr in entry["words"]
    ]
    write_table(out / "words.csv", words, ("key", "class", "word", "variant", "cnr"))
    write_table(out / "excluded.csv", lost, ("key", "class", "phrase", "reason"), only=True)
    return summary
