"""Which words point best? The CNR of every single word of every phrase. Source: Dombrowski et al. 2024, Table 6."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from meddiff.evaluation.grounding import Entry, Grounding, GroundingOptions
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.ranks import Ranks
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs import names
from meddiff.shards.dataset import LatentShardsDataset


class Words:
    """Word maps come out of the grounding pass: where that has run in the same folder, nothing is computed again.

    Args:
        options: of grounding; always taken in full.
        show_progress: draw a progress bar.
    """

    def __init__(self, options: GroundingOptions = GroundingOptions(), show_progress: bool = False) -> None:  # noqa: B008
        self.grounding = Grounding(replace(options, full=True), show_progress)

    @property
    def show_progress(self) -> bool:
        """Of the pass."""
        return self.grounding.show_progress

    @show_progress.setter
    def show_progress(self, shown: bool) -> None:
        self.grounding.show_progress = shown

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a split with nothing to ground."""
        self.grounding.check(split)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run."""
        return self.grounding.cost(model, split)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Table ``words`` and its averages, :func:`word_result`."""
        return word_result(self.grounding.entries(model, split, out, ranks))


def word_result(entries: Iterable[Entry]) -> Result:
    """Table ``words``: variant "first" is a word's first token, "all" the mean of its tokens.

    Figures: ``occurrences`` of words, ``different`` ones, and their mean ``cnr`` (variant "all").
    """
    rows: list[Row] = [
        {"key": entry["row"]["key"], "class": entry["row"]["class"], "word": word, "variant": variant, "cnr": cnr}
        for entry in entries
        for word, variant, cnr in entry["words"]
    ]
    whole = [row for row in rows if row["variant"] == "all" and row["word"] not in names.SPECIAL_TOKENS]
    defined = [float(cnr) for cnr in (row["cnr"] for row in whole) if cnr is not None and math.isfinite(float(cnr))]
    figures = {
        "occurrences": float(len(whole)),
        "different": float(len({row["word"] for row in whole})),
        "cnr": math.fsum(defined) / len(defined) if defined else math.nan,
    }
    return Result(figures, {"words": Table(rows, ("key", "class", "word", "variant", "cnr"))})
