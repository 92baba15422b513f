"""Where meaning goes when it leaves the word: to the end token, to a confounder, or nowhere. By training step and timestep.

Four measurements of every kept checkpoint of a run, and of the weights that it started from:

- ``mechanism_attention``: the share of cross-attention on start token, words, end token and padding
- ``mechanism_cnr``, ``mechanism_words``: what each kind of word points at: its finding, or what travels with it
- ``mechanism_moved``: how far each token's state lies from that of the base tower
- ``mechanism_probe``: what a linear probe reads off each token's state: finding, denied or not, side

Table ``mechanism`` is their summary, one row a checkpoint and figure, which the report draws. Source: own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from typing_extensions import TypedDict

from meddiff.attribution.grounding_pass import paper_timesteps
from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.draws import torch_seed
from meddiff.common.progress import progress_bar
from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.evaluation.ledger import Ledger
from meddiff.evaluation.measurement import Result, Row, Table, Value
from meddiff.evaluation.mechanism_maps import ALL, mean_shares, measure_maps, ratio_rows, share_rows, word_rows
from meddiff.evaluation.mechanism_states import Caption, moved_rows, probe_rows, read_captions
from meddiff.evaluation.provenance import model_digest, split_digest, weights_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import GroundingSample, grounding_samples
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.tower import TextTower
from meddiff.shards.dataset import LatentShardsDataset

#: Name -> rows.
Tables = dict[str, list[dict[str, Value]]]
#: Counts up when the same weights are measured by other rules.
RULES = 1
WHEN = ("images", "step")
FIRST: dict[str, tuple[str, ...]] = {
    "mechanism": ("model", "seed", *WHEN, "figure", "value", "low", "high", "n"),
    "mechanism_attention": (*WHEN, "layer", "timestep", "place", "share"),
    "mechanism_cnr": (*WHEN, "role", "target", "timestep", "value", "low", "high", "n"),
    "mechanism_words": (*WHEN, "word", "target", "value", "low", "high", "n"),
    "mechanism_moved": (*WHEN, "role", "moved", "low", "high", "cosine", "cosine_low", "cosine_high", "apart", "n"),
    "mechanism_probe": (*WHEN, "question", "position", "control", "accuracy", "low", "high", "chance", "findings", "n"),
}


@dataclass(frozen=True)
class MechanismOptions:
    """Options of ``lightning evaluate mechanism``."""

    split: str = "grounding"
    """Split whose phrases and images are looked at."""
    samples: int | None = None
    """Number of phrases, balanced over classes; null takes all."""
    timesteps: int = 10
    """How many of the paper's 40 timesteps."""
    captions: int | None = 2000
    """Captions of training that probes are fitted on, and at most so many held-out ones; null takes all."""
    batch_size: int = 64
    """(phrase, timestep) pairs per forward pass; changes no result."""
    seed: int = 0
    """Of noise and subset."""

    def __post_init__(self) -> None:
        check_ranges(
            "mechanism",
            self,
            samples=COUNT,
            timesteps=Range(1, 40, whole=True),
            captions=COUNT,
            batch_size=COUNT,
        )


@dataclass(frozen=True)
class Stage:
    """The model after so much training.

    Attributes:
        images: it was trained on; 0 are the weights that the run started from.
        step: optimiser steps.
        open: reads it; called when its turn comes, so that one is in memory at a time.
    """

    images: int
    step: int
    open: Callable[[], LatentDiffusion]


@dataclass
class Course:
    """The training that a model has come through, and the captions of its cohort.

    Attributes:
        stages: by images.
        base: text tower that the run started from; None where that is not known.
        train: split whose captions probes are fitted on.
        held_out: splits whose captions training has not seen.
    """

    stages: Sequence[Stage]
    base: TextTower | None = None
    train: LatentShardsDataset | None = None
    held_out: Sequence[LatentShardsDataset] = field(default_factory=list)


def is_start(base: LatentDiffusion, model: LatentDiffusion) -> bool:
    """Whether a model can have been trained from ``base``: a tower that was frozen still has every bit."""
    return not model.freeze_text_encoder or weights_digest(base.text_encoder) == weights_digest(model.text_encoder)


class Entry(TypedDict):
    """One line of the ledger: what was found of one state of the weights."""

    weights: str
    tables: Tables


class Mechanism:
    """All four, of every stage of a training.

    Args:
        options: what is measured.
        course: the stages.
        show_progress: draw progress bars.
    """

    def __init__(self, options: MechanismOptions, course: Course, show_progress: bool = False) -> None:
        self.options, self.course, self.show_progress = options, course, show_progress
        self.steps = paper_timesteps(options.timesteps)

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a split with nothing to ground."""
        self._samples(split)

    @cached_property
    def captions(self) -> tuple[list[Caption], list[Caption]]:
        """Of training and held out."""
        limit, course = self.options.captions, self.course
        train = read_captions(course.train, limit) if course.train is not None else []
        held_out = [caption for split in course.held_out for caption in read_captions(split, limit)]
        return train, held_out[:limit]

    def without_probe(self) -> str | None:
        """Why nothing can be probed for, a sentence; None where it can."""
        train, held_out = self.captions
        if train and held_out and any(one.mentions is not None for one in train):
            return None
        return "No probe: it needs captions whose words are labelled, in training and held out, as phantoms have them."

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run."""
        return float(len(self.course.stages) * len(self._samples(split)) * len(self.steps))

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """The tables of the module's head; figures are those of ``model``, the last stage.

        Raises:
            UserError: results of other settings are in the way.
        """
        base, course = self.course.base, self.course
        splits = [split, *([course.train] if course.train is not None else []), *course.held_out]
        settings = {name: value for name, value in asdict(self.options).items() if name != "batch_size"}
        settings |= {"rules": RULES, "samples": [split_digest(one) for one in splits]}
        settings |= {"base": weights_digest(base) if base is not None else None}
        ledger: Ledger[Entry] = Ledger(None if out is None else out / "mechanism.jsonl", settings, Entry)
        mine: list[tuple[int, int, Tables]] = []
        with ledger:
            for stage in ranks.share(course.stages):
                network = stage.open()
                digest = model_digest(network)
                entry = next((one for one in ledger.entries if one["weights"] == digest), None)
                if entry is None:
                    entry = {"weights": digest, "tables": self._measure(network, split, stage)}
                    ledger.add(entry)
                mine.append((stage.images, stage.step, entry["tables"]))
            found = sorted(ranks.gather(mine), key=lambda one: one[:2])
        return _result(found)

    # ---- parts --------------------------------------------------------------------------------------------------

    def _samples(self, split: LatentShardsDataset) -> list[GroundingSample]:
        return grounding_samples(split, list(QUERY_WORDS), self.options.samples, self.options.seed)[0]

    def _measure(self, model: LatentDiffusion, split: LatentShardsDataset, stage: Stage) -> Tables:
        options, samples = self.options, self._samples(split)
        title = f"mechanism, {stage.images:,} images"
        with progress_bar(len(samples) * len(self.steps), "pass", title, self.show_progress) as bar:
            found = measure_maps(model, split, samples, self.steps, options.seed, options.batch_size, bar.update)
        train, held_out = self.captions
        tables: dict[str, Sequence[Row]] = {
            "mechanism_attention": share_rows(found),
            "mechanism_cnr": ratio_rows(found),
            "mechanism_words": word_rows(found),
            "shares": mean_shares(found),
        }
        if self.course.base is not None and held_out:
            tables["mechanism_moved"] = moved_rows(model.text_encoder, self.course.base, held_out)
        if self.without_probe() is None:
            tables["mechanism_probe"] = self._probe(model.text_encoder, train, held_out, at_start=stage.images == 0)
        return {name: [dict(row) for row in rows] for name, rows in tables.items()}

    def _probe(
        self, tower: TextTower, train: Sequence[Caption], held_out: Sequence[Caption], at_start: bool
    ) -> list[Row]:
        fit, test = ([one for one in some if one.mentions] for some in (train, held_out))
        rows = probe_rows(tower, fit, test)
        if at_start:  # what words alone give away, to any tower
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(torch_seed(self.options.seed, "untrained tower"))
                drawn = build_text_encoder(dict(tower.config)).eval().to(tower.token_table.weight.device)
            rows += [{**row, "control": "untrained"} for row in probe_rows(drawn, fit, test) if not row["control"]]
        return rows


def _result(found: Sequence[tuple[int, int, Tables]]) -> Result:
    """Tables over all stages."""
    tables: dict[str, list[Row]] = {name: [] for name in FIRST}
    figures: dict[str, float] = {}
    for images, step, of_stage in found:
        when = {"images": images, "step": step}
        lines = summary(of_stage)
        tables["mechanism"] += [{**when, **line} for line in lines]
        figures = {str(one["figure"]): _number(one["value"]) for one in lines}
        for name, rows in of_stage.items():
            if name in FIRST:
                tables[name] += [{**when, **row} for row in rows]
    return Result(figures, {name: Table(rows, FIRST[name]) for name, rows in tables.items()})


def summary(tables: Mapping[str, Sequence[Mapping[str, Value]]]) -> list[dict[str, Value]]:
    """The figures of one stage: ``attention/PLACE``, ``cnr/ROLE/TARGET``, ``moved/ROLE``, ``probe/QUESTION/POSITION``,
    and behind the last two what they are read against: ``apart``; ``chance``, ``shuffled``, ``untrained``."""
    lines: list[dict[str, Value]] = []

    def add(name: str, row: Mapping[str, Value], value: str) -> None:
        lines.append(
            {"figure": name.replace(" ", "_"), "value": row[value], **{k: row.get(k) for k in ("low", "high", "n")}}
        )

    def add_control(name: str, row: Mapping[str, Value], value: str) -> None:
        lines.append({"figure": name, "value": row[value], "low": None, "high": None, "n": row["n"]})

    for row in tables.get("shares", ()):
        add(f"attention/{row['place']}", row, "value")
    for row in tables.get("mechanism_cnr", ()):
        if row["timestep"] == ALL:
            add(f"cnr/{row['role']}/{row['target']}", row, "value")
    for row in tables.get("mechanism_moved", ()):
        add(f"moved/{row['role']}", row, "moved")
        add_control(f"moved/{row['role']}/apart", row, "apart")
    for row in tables.get("mechanism_probe", ()):
        name = f"probe/{row['question']}/{row['position']}"
        add(f"{name}/{row['control']}" if row["control"] else name, row, "accuracy")
        if not row["control"]:
            add_control(f"{name}/chance", row, "chance")
    return lines


def _number(value: Value) -> float:
    return math.nan if value is None else float(value)
