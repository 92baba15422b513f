"""Every grounding figure beside what it has to be read against. A CNR without its controls is no result.

- ``trained``: the model on the grounding split, phrases as they are
- ``prior``: mean box of the class in training: what place alone is worth
- ``centre``, ``random``: a Gaussian in the middle of the image; noise
- ``shuffled_captions``: each image with the phrase of another one of its class: the word stays, side and place are wrong
- ``absent_finding``: each image asked for a finding it does not have: a map that follows the image alone stays as it is
- ``base``: the weights the training started from
- ``untrained``: the same network, never trained
- ``mirrored_own``, ``mirrored_twin``: mirrored pairs: the map where its finding lies, and where it lies in the twin

Table ``own_first``: of the trained, the base and the untrained network, whether words tell findings apart
(:mod:`meddiff.evaluation.own_first`) and whether maps move with the finding (:mod:`meddiff.evaluation.mirrored_twins`).
Source: own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps, paper_timesteps
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.evaluation.grounding import GroundingOptions, ground_items, text_item
from meddiff.evaluation.grounding_scores import grounding_summary, localisation
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.mirrored_twins import mirrored
from meddiff.evaluation.own_first import by_class, compare, cross_table, naming_samples, own_part
from meddiff.evaluation.priors import grounding_priors
from meddiff.evaluation.progress import progress_bar
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import GroundingSample, evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import resize_maps
from meddiff.metrics.summary import summarise_defined
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

FIRST = ("control", "cnr", "macro_cnr", "auroc", "macro_auroc", "top1", "macro_top1", "mask_cnr", "eos_cnr", "n")
OWN_FIRST = ("network", "pairs", "first", "low", "high", "own", "other", "eos_first")


@dataclass(frozen=True)
class ControlsOptions:
    """Options of ``lightning evaluate controls``."""

    split: str = "grounding"
    """Split of the shards."""
    samples: int | None = None
    """Number of phrases, balanced over classes; null takes all."""
    timesteps: int = 10
    """How many of the paper's 40 timesteps."""
    mirrored: int = 160
    """Phantoms in mirrored pairs, rendered at first use; only for a run on phantoms. 0 leaves them out."""
    crowded: int = 400
    """Phantoms with several findings each, rendered at first use; only for a run on phantoms. 0 leaves them out."""

    def __post_init__(self) -> None:
        check_ranges("controls", self, samples=COUNT, timesteps=Range(1, 40, whole=True))
        if self.mirrored < 0 or self.mirrored % 2 or self.crowded < 0:
            raise UserError(
                f"controls: mirrored {self.mirrored}, crowded {self.crowded}; both are numbers of phantoms, 0 or more, and "
                f"mirrored ones come in pairs."
            )


@dataclass
class Others:
    """What the trained model is compared with and on; what is None is left out.

    Attributes:
        train: split of training, where boxes of the location prior are counted.
        base: the model before it was trained.
        untrained: the same network with random weights.
        mirrored: phantoms in mirrored pairs.
        crowded: phantoms with several findings each.
    """

    train: LatentShardsDataset | None = None
    base: LatentDiffusion | None = None
    untrained: LatentDiffusion | None = None
    mirrored: LatentShardsDataset | None = None
    crowded: LatentShardsDataset | None = None


class Controls:
    """All controls of phrase grounding.

    Args:
        options: what is measured.
        others: what the model is compared with.
        show_progress: draw progress bars.
    """

    def __init__(self, options: ControlsOptions, others: Others, show_progress: bool = False) -> None:
        self.options, self.others, self.show_progress = options, others, show_progress
        self.steps = paper_timesteps(options.timesteps)
        self.grounding = GroundingOptions(options.split, options.samples, options.timesteps)

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a split with nothing to ground."""
        self._samples(split)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run, without those on mirrored and crowded phantoms."""
        rows = 3 + (self.others.base is not None) + (self.others.untrained is not None)
        return float(rows * len(self._samples(split)) * len(self.steps))

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Figures of the trained model; ``controls`` has a row for everything else."""
        samples, others = self._samples(split), self.others
        rows = {
            "trained": self._summary(model, split, samples, "trained"),
            **grounding_priors(others.train, samples, list(QUERY_WORDS), show_progress=self.show_progress),
            "shuffled_captions": self._summary(model, split, shuffled(samples), "shuffled captions"),
            "absent_finding": self._absent(model, split, samples),
        }
        networks = {"base": others.base, "untrained": others.untrained}
        present = {"trained": model, **{name: one for name, one in networks.items() if one is not None}}
        for name, network in list(present.items())[1:]:
            rows[name] = self._summary(network, split, samples, name)
        compared: dict[str, dict[str, float]] = {name: {} for name in present}
        tables: dict[str, Table] = {}
        if others.crowded is not None:
            named, left_out = naming_samples(model, others.crowded)
            for name, network in present.items():
                with self._bar(len(named), f"own finding first, {name}") as bar:
                    table = cross_table(network, others.crowded, named, self.steps, bar.update)
                compared[name] |= {**compare(table), "unnamed": float(left_out)}
                if name == "trained":
                    means, labels = by_class(table, list(QUERY_WORDS)), list(QUERY_WORDS)
                    cells = [dict(zip(labels, map(float, line), strict=True)) for line in means]
                    tables["words_on_findings"] = Table(
                        [
                            {"word": label, **line, "its own": float(own)}
                            for label, line, own in zip(labels, cells, own_part(means), strict=True)
                        ],
                        ("word", *labels, "its own"),
                    )
        if others.mirrored is not None:
            for name, network in present.items():
                pairs = mirrored(network, others.mirrored, self.steps)
                compared[name] |= {"moved": pairs.moved, "moved_low": pairs.low, "moved_high": pairs.high}
                compared[name] |= {"twins": float(pairs.pairs)}
                compared[name] |= {"own_place": pairs.own["cnr"], "twins_place": pairs.twin["cnr"]}
                if name == "trained":
                    rows |= {"mirrored_own": pairs.own, "mirrored_twin": pairs.twin}
        tables["controls"] = Table([{"control": name, **row} for name, row in rows.items()], FIRST)
        if any(compared.values()):
            lines: list[Row] = [{"network": name, **row} for name, row in compared.items()]
            tables["own_first"] = Table(lines, OWN_FIRST)
        figures = rows["trained"] | {f"pairs/{name}": value for name, value in compared["trained"].items()}
        return Result(figures, tables, {name: row for name, row in rows.items() if name != "trained"})

    # ---- parts --------------------------------------------------------------------------------------------------

    def _samples(self, split: LatentShardsDataset) -> list[GroundingSample]:
        return grounding_samples(split, list(QUERY_WORDS), self.options.samples)[0]

    def _bar(self, items: int, title: str) -> "tqdm[None]":
        return progress_bar(items * len(self.steps), "pass", title, self.show_progress)

    def _summary(
        self, model: LatentDiffusion, split: LatentShardsDataset, samples: Sequence[GroundingSample], title: str
    ) -> dict[str, float]:
        tokenizer, queries = model.text_encoder.tokenizer, self.grounding.queries
        items = [text_item(tokenizer, sample, queries, "phrase", full=False) for sample in samples]
        with self._bar(len(items), title) as bar:
            rows = [entry["row"] for entry in ground_items(model, split, items, self.grounding, bar.update)]
        return grounding_summary(rows)

    def _absent(
        self, model: LatentDiffusion, split: LatentShardsDataset, samples: Sequence[GroundingSample]
    ) -> dict[str, float]:
        """Every image is asked for a finding it does not have, and scored on the box of the one it has."""
        items, scored, rows = [], [], []
        for sample in samples:
            present = set(split.metadata(sample.index)["labels"])
            others = [one for one in samples if one.label not in present]
            if not others:
                continue
            other = others[int(generator(0, "other class", sample.key, sample.label).integers(len(others)))]
            tokenizer = model.text_encoder.tokenizer
            weights = query_tokens(tokenizer, other.phrase, QUERY_WORDS[other.label]).weights
            latents = evaluation_latents(split, sample.index, 0)
            items.append(GroundingItem(sample.key, latents, other.phrase, weights[None]))
            scored.append(sample)
        with self._bar(len(items), "absent finding") as bar, undisturbed(model):
            maps = grounding_pass(model, items, self.steps, on_progress=bar.update)
            for i, heat in mean_over_timesteps(maps, len(self.steps)):
                full, box = resize_maps(heat, scored[i].size)[0], torch.from_numpy(scored[i].box_mask())
                rows.append({"class": scored[i].label, "miou": None, **localisation(full, box)})
        return summarise_defined(rows)


def shuffled(samples: Sequence[GroundingSample]) -> list[GroundingSample]:
    """Each sample with the phrase of another image about the same class: the word stays, side and place are wrong.

    Where the class has one image only, the phrase is its own.
    """
    found = []
    for sample in samples:
        others = [one.phrase for one in samples if one.label == sample.label and one.key != sample.key]
        draw = generator(0, "shuffled phrase", sample.key, sample.label)
        found.append(replace(sample, phrase=others[int(draw.integers(len(others)))] if others else sample.phrase))
    return found
