"""Every grounding figure beside what it has to be read against. A CNR without its controls is no result.

- ``trained``: the model on the grounding split, phrases as they are
- ``prior``: mean box of the class in training: what place alone is worth
- ``centre``, ``random``: a Gaussian in the middle of the image; noise
- ``shuffled_captions``: each image with the phrase of another one of its class: the word stays, side and place are wrong
- ``absent_finding``: each image asked for a finding it does not have: a map that follows the image alone stays as it is
- ``base``: the weights the training started from
- ``untrained``: the same network, never trained
- ``mirrored_own``, ``mirrored_twin``: mirrored pairs: the map where its finding lies, and where it lies in the twin

Table ``gain``, and first among the figures: what of the trained model's score is left under its own controls
(:mod:`meddiff.evaluation.gain`).

Table ``own_first``: of the trained, the base and the untrained network, whether words tell findings apart
(:mod:`meddiff.evaluation.own_first`) and whether maps move with the finding (:mod:`meddiff.evaluation.mirrored_twins`).
Source: own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from meddiff.attribution.grounding_pass import paper_timesteps
from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.progress import Bar, progress_bar
from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.evaluation.gain import Gains, absent_findings, absent_maps, other_places
from meddiff.evaluation.grounding import GroundingOptions, ground_items, text_item
from meddiff.evaluation.grounding_scores import grounding_summary, localisation
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.mirrored_twins import mirrored
from meddiff.evaluation.own_first import by_class, compare, cross_table, naming_samples, own_part
from meddiff.evaluation.priors import grounding_priors
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import GroundingSample, grounding_samples
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
    networks: bool = True
    """Also the base and the network untrained, in three fifths of the time. All runs of a sweep over one base share them."""

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
        samples, others, gains = self._samples(split), self.others, Gains()
        trained = self._rows(model, split, samples, "trained", gains)
        rows = {
            "trained": grounding_summary(trained),
            **grounding_priors(others.train, samples, list(QUERY_WORDS), show_progress=self.show_progress),
            "shuffled_captions": grounding_summary(self._rows(model, split, shuffled(samples), "shuffled captions")),
            "absent_finding": self._absent(model, split, samples, trained, gains),
        }
        networks = {"base": others.base, "untrained": others.untrained}
        present = {"trained": model, **{name: one for name, one in networks.items() if one is not None}}
        for name, network in list(present.items())[1:]:
            rows[name] = grounding_summary(self._rows(network, split, samples, name))
        compared: dict[str, dict[str, float]] = {name: {} for name in present}
        tables: dict[str, Table] = {}
        if others.crowded is not None:
            named, left_out = naming_samples(model, others.crowded)
            for name, network in present.items():
                with self._bar(len(named), f"own finding first, {name}") as bar:
                    taken = gains if name == "trained" else None
                    table = cross_table(network, others.crowded, named, self.steps, bar.update, taken)
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
                pairs = mirrored(network, others.mirrored, self.steps, gains if name == "trained" else None)
                compared[name] |= {"moved": pairs.moved, "moved_low": pairs.low, "moved_high": pairs.high}
                compared[name] |= {"twins": float(pairs.pairs)}
                compared[name] |= {"own_place": pairs.own["cnr"], "twins_place": pairs.twin["cnr"]}
                if name == "trained":
                    rows |= {"mirrored_own": pairs.own, "mirrored_twin": pairs.twin}
        tables["controls"] = Table([{"control": name, **row} for name, row in rows.items()], FIRST)
        if any(compared.values()):
            lines: list[Row] = [{"network": name, **row} for name, row in compared.items()]
            tables["own_first"] = Table(lines, OWN_FIRST)
        tables = {**gains.tables(), **tables}
        figures = {**gains.figures(), **rows["trained"]}
        figures |= {f"pairs/{name}": value for name, value in compared["trained"].items()}
        controls: dict[str, object] = {name: row for name, row in rows.items() if name != "trained"}
        return Result(
            figures, tables, {"gain": {str(row["control"]): _numbers(row) for row in gains.rows()}, **controls}
        )

    # ---- parts --------------------------------------------------------------------------------------------------

    def _samples(self, split: LatentShardsDataset) -> list[GroundingSample]:
        return grounding_samples(split, list(QUERY_WORDS), self.options.samples)[0]

    def _bar(self, items: int, title: str) -> Bar:
        return progress_bar(items * len(self.steps), "pass", title, self.show_progress)

    def _rows(
        self,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        samples: Sequence[GroundingSample],
        title: str,
        gains: Gains | None = None,
    ) -> list[Row]:
        """A row a sample; the maps are also scored elsewhere where gains are to be had."""
        tokenizer, queries = model.text_encoder.tokenizer, self.grounding.queries
        items = [text_item(tokenizer, sample, queries, "phrase", full=False) for sample in samples]
        for item, places in zip(items, other_places(split, samples) if gains is not None else (), strict=False):
            item.elsewhere = places
        with self._bar(len(items), title) as bar:
            entries = list(ground_items(model, split, items, self.grounding, bar.update))
        for item, entry in zip(items, entries, strict=True):
            if gains is not None:
                gains.add_scores(item.sample, entry["elsewhere"], item.elsewhere)
        return [entry["row"] for entry in entries]

    def _absent(
        self,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        samples: Sequence[GroundingSample],
        trained: Sequence[Row],
        gains: Gains,
    ) -> dict[str, float]:
        """Every image is asked for a finding it does not have, and scored on the box of the one it has."""
        asked, rows = absent_findings(split, samples), []
        own = {id(sample): row["cnr"] for sample, row in zip(samples, trained, strict=True)}
        with self._bar(len(asked), "absent finding") as bar:
            for i, full in absent_maps(model, split, asked, self.steps, QUERY_WORDS, on_progress=bar.update):
                sample, box = asked[i][0], torch.from_numpy(asked[i][0].box_mask())
                rows.append({"class": sample.label, "miou": None, **localisation(full, box)})
                gains.add("absent", sample, own[id(sample)], rows[-1]["cnr"])
        return summarise_defined(rows)


def _numbers(row: Row) -> dict[str, float]:
    """Its figures that are known; JSON has no NaN."""
    return {name: value for name, value in row.items() if isinstance(value, float)}


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
