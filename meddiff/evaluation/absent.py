"""Is a word's map silent when its finding is absent, and how do scores depend on the size of the lesion?

Every phrase is asked of its own image and of one that does not have its finding (another phrase about the image of the
first is absent there); where reports deny findings (PadChest-GR), what they deny is asked, too. Maps stay raw, since a map
brought to 0..1 hides that nothing is there. ``absent_auroc``: chance is 0.5, which a map blind to words has, too; beside it
stands the same with presence shuffled within each class. ``false_focus``: what of the CNR in the class's usual place is
there without the finding. ``no_target_accuracy``: of absent findings, how many fall below the threshold that keeps 95 % of
the present ones of the other half of the images.
Scores by size come from the maps of present findings.
Source: own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from typing_extensions import TypedDict

from meddiff.attribution.grounding_pass import paper_timesteps
from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.denied import denied_findings
from meddiff.evaluation.gain import absent_findings, absent_maps
from meddiff.evaluation.grounding_scores import localisation
from meddiff.evaluation.ledger import Ledger, open_ledger
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.priors import usual_place
from meddiff.evaluation.progress import progress_bar
from meddiff.evaluation.provenance import sample_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import GroundingSample, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional.absent import absent_auroc, false_focus, map_scores, no_target_accuracy
from meddiff.metrics.functional.size_strata import by_size, size_correlation, stratum
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

FIRST = (
    "key",
    "class",
    "phrase",
    "present",
    "denied",
    "top",
    "max",
    "usual_cnr",
    "cnr",
    "auroc",
    "top1",
    "area",
    "size",
)
SIZES = ("score", "size", "mean", "macro", "n", "spearman")
#: Scores that are taken apart by size.
SCORES = ("cnr", "auroc", "top1")
#: The class's usual place: where its boxes lie at least half as often as where they lie most often.
USUAL = 0.5


@dataclass(frozen=True)
class AbsentOptions:
    """Options of ``lightning evaluate absent``."""

    split: str = "grounding"
    """Split of the shards."""
    samples: int | None = None
    """Number of phrases, balanced over classes; null takes all."""
    timesteps: int = 10
    """How many of the paper's 40 timesteps."""
    batch_size: int = 64
    """(text, timestep) pairs per forward pass; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of noise, subset and halves."""

    def __post_init__(self) -> None:
        check_ranges("absent", self, samples=COUNT, timesteps=Range(1, 40, whole=True), batch_size=COUNT)


class Entry(TypedDict):
    """One line of the ledger: an asking, its image's digest, and its scores."""

    address: str
    made: str
    scores: dict[str, float | None]


class Absent:
    """Maps of present and of absent findings, and scores by the size of the lesion.

    Args:
        options: what is measured.
        train: split of training, where the usual places are counted; None counts them in the boxes of the split.
        show_progress: draw a progress bar.
    """

    def __init__(
        self,
        options: AbsentOptions = AbsentOptions(),
        train: LatentShardsDataset | None = None,
        show_progress: bool = False,
    ) -> None:
        self.options, self.train, self.show_progress = options, train, show_progress
        self.steps = paper_timesteps(options.timesteps)

    def askings(self, split: LatentShardsDataset) -> list[tuple[GroundingSample, GroundingSample]]:
        """(image, phrase): every phrase of its own image, then every image asked for what it does not have.

        What a report denies comes last; an image that was asked for that class already is not asked twice.

        Raises:
            UserError: nothing to ground, or no image without a finding that is asked for.
        """
        samples = grounding_samples(split, list(QUERY_WORDS), self.options.samples, self.options.seed)[0]
        denied = denied_findings(split, samples, self.options.samples, self.options.seed)
        vouched = {(image.key, phrase.label) for image, phrase in denied}
        drawn = absent_findings(split, samples)
        absent = [(image, one) for image, one in drawn if (image.key, one.label) not in vouched] + denied
        if not absent:
            raise UserError(
                f"Every image of the split {split.split!r} of {split.folder} has all findings that are asked for: "
                "take more samples."
            )
        return [(one, one) for one in samples] + absent

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a split with nothing to ground, or without absent findings."""
        self.askings(split)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run."""
        return float(len(self.askings(split)) * len(self.steps))

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Tables ``absent``, a row an asking, and ``sizes``, a row for each score and size.

        Raises:
            UserError: as :meth:`askings`, or results of other settings in the way.
        """
        asked = self.askings(split)
        ledger: Ledger[Entry] = open_ledger(out, "absent.jsonl", model, split, asdict(self.options), Entry)
        made = {image.index: sample_digest(split, image.index) for image, _ in asked}
        wanted = {_address(*pair): made[pair[0].index] for pair in asked}
        with ledger, undisturbed(model), model.weights(self.options.ema):
            done = {one["address"] for one in ledger.entries if one["made"] == wanted.get(one["address"])}
            missing = [pair for pair in asked if _address(*pair) not in done]
            self._score(model, split, ranks.share(missing), [one for one, other in asked if one is other], ledger, made)
            found = {
                one["address"]: one for one in ranks.gather(ledger.entries) if one["made"] == wanted.get(one["address"])
            }
        rows: list[dict[str, str | float | None]] = []
        for image, phrase in asked:
            share = float(phrase.box_mask().mean()) if image is phrase else None
            row: dict[str, str | float | None] = {"key": image.key, "class": phrase.label, "phrase": phrase.phrase}
            row |= {"present": float(image is phrase), "denied": float(not len(image.boxes))}
            row |= found[_address(image, phrase)]["scores"]
            rows.append(row | {"area": share, "size": None if share is None else stratum(share)})
        return absent_result(rows, self.options.seed)

    def _score(
        self,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        pairs: Sequence[tuple[GroundingSample, GroundingSample]],
        samples: Sequence[GroundingSample],
        ledger: "Ledger[Entry]",
        made: dict[int, str],
    ) -> None:
        usual = usual_place(self.train, samples, list(QUERY_WORDS))
        seed, size = self.options.seed, self.options.batch_size
        with progress_bar(len(pairs) * len(self.steps), "pass", "absent findings", self.show_progress) as bar:
            for i, heat in absent_maps(model, split, pairs, self.steps, QUERY_WORDS, seed, size, bar.update):
                image, phrase = pairs[i]
                with one_core():
                    often = usual(phrase).heat  # (H, W)
                    place = often >= max(USUAL * float(often.max()), 1e-12)
                    scores = {name: float(value) for name, value in map_scores(heat[None]).items()}
                    scores["usual_cnr"] = localisation(heat, place)["cnr"]
                    if image is phrase:
                        scores |= localisation(heat, torch.from_numpy(phrase.box_mask()))
                plain = {name: value if value == value else None for name, value in scores.items()}
                ledger.add({"address": _address(image, phrase), "made": made[image.index], "scores": plain})


def absent_result(rows: Sequence[Row], seed: int) -> Result:
    """Figures and tables of askings.

    Args:
        rows: as of the table ``absent``.
        seed: of the halves of images, and of the shuffled control.
    """
    present = [bool(row["present"]) for row in rows]
    classes, keys = [str(row["class"]) for row in rows], [str(row["key"]) for row in rows]
    figures: dict[str, float] = {}
    shuffled = _shuffled(present, classes, seed)
    for name in ("top", "max"):
        scores = _column(rows, name)
        suffix = "" if name == "top" else "_max"
        found = absent_auroc(scores, present, classes)
        figures[f"absent_auroc{suffix}"] = found.pop("")
        figures[f"absent_auroc{suffix}_shuffled"] = absent_auroc(scores, shuffled, classes)[""]
        if name == "top":
            figures |= {f"{label}/absent_auroc": value for label, value in found.items()}
    scores, usual = _column(rows, "top"), _column(rows, "usual_cnr")
    no, yes = ([i for i, one in enumerate(present) if one == want] for want in (False, True))
    figures["false_focus"] = false_focus(
        [usual[i] for i in no], [usual[i] for i in yes], [classes[i] for i in no], [classes[i] for i in yes]
    )
    half = [float(generator(seed, "half of images", key).random()) < 0.5 for key in keys]
    silent = [
        no_target_accuracy(
            [s for s, p, h in zip(scores, present, half, strict=True) if p and h == one],
            [s for s, p, h in zip(scores, present, half, strict=True) if not p and h != one],
        )
        for one in (False, True)
    ]
    figures["no_target_accuracy"] = sum(silent) / 2
    figures |= {"n": float(sum(present)), "n_absent": float(len(present) - sum(present))}
    mine = [row for row in rows if row["present"]]
    areas, labels = _column(mine, "area"), [str(row["class"]) for row in mine]
    sizes: list[Row] = []
    for name in SCORES:
        values = _column(mine, name)
        correlation = size_correlation(values, areas)
        figures["size_spearman" if name == "cnr" else f"{name}_size_spearman"] = correlation
        for size, row in by_size(values, areas, labels).items():
            sizes.append({"score": name, "size": size, **row, "spearman": correlation})
            figures |= {f"{name}/{size}": row["mean"], f"{name}/macro_{size}": row["macro"]}
            figures[f"n/{size}"] = row["n"]
    tables = {"absent": Table(rows, FIRST), "sizes": Table(sizes, SIZES)}
    return Result({name: value for name, value in figures.items() if value == value}, tables)


def _address(image: GroundingSample, phrase: GroundingSample) -> str:
    return "|".join((image.key, image.label, image.phrase, phrase.key, phrase.label, phrase.phrase))


def _column(rows: Sequence[Row], name: str) -> list[float]:
    """NaN where a row has none."""
    return [float("nan") if (cell := row.get(name)) is None else float(cell) for row in rows]


def _shuffled(present: Sequence[bool], classes: Sequence[str], seed: int) -> list[bool]:
    """Presence dealt out anew among the askings of each class: what a map that knows nothing gets."""
    found = list(present)
    for name in sorted(set(classes)):
        places = [i for i, one in enumerate(classes) if one == name]
        order = generator(seed, "presence shuffled", name).permutation(len(places))
        for place, other in zip(places, order, strict=True):
            found[place] = present[places[int(other)]]
    return found
