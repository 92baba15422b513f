"""How different are images drawn for one prompt? Table 4: MS-SSIM, per prompt and as the paper's code computed it.

Source: Dombrowski et al. 2024, Table 4; spec/tradeoff.md section 7 and section 0 fact 9.
"""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.progress import progress_bar
from meddiff.common.ranges import COUNT, check_ranges
from meddiff.evaluation.drawing import draw_prompts, finished_keys, folder_needed, read_images
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.not_finite import without_figures
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.diversity import PairwiseSimilarity
from meddiff.models.autoencoder import NotFiniteImages
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset

FIRST = ("protocol", "group", "pair", "value")
#: Images of a set in the paper's code: six pairs.
PAPER_SET = 4


@dataclass(frozen=True)
class DiversityOptions:
    """Options of ``lightning evaluate diversity``."""

    split: str = "fidelity"
    """Split of the shards whose impressions are the prompts."""
    prompts: int = 25
    """Different prompts."""
    per_prompt: int = 4
    """Images drawn for each."""
    paper_sets: int = 100
    """Sets of 4 images of any prompts (the paper's protocol); 0 leaves it out."""
    sampling: SamplingOptions | None = None
    """How images are drawn; null takes the model's own."""
    batch_size: int = 32
    """Images drawn at a time; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of prompts, initial noise and sets."""

    def __post_init__(self) -> None:
        check_ranges("diversity", self, batch_size=COUNT)
        if self.prompts < 1 or self.per_prompt < 2 or self.paper_sets < 0:
            raise UserError(
                f"diversity: prompts {self.prompts}, per_prompt {self.per_prompt}, paper_sets {self.paper_sets}; at least "
                "1 prompt with 2 images is needed, and no negative number of sets."
            )


class Diversity:
    """``standard``: all pairs of images of one prompt, values in 0..255. ``paper``: pairs within sets of 4 images drawn from
    all images of all prompts, and the data range of each pair; the images of the fidelity evaluation where it has been
    finished with the same settings, else those of this one. A group of the table is a prompt's key, or a set.

    Args:
        options: what is measured.
        show_progress: draw progress bars.
    """

    def __init__(self, options: DiversityOptions = DiversityOptions(), show_progress: bool = False) -> None:
        self.options, self.show_progress = options, show_progress

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse fewer than so many different impressions."""
        choose_prompts(split, self.options.prompts, self.options.seed)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run."""
        options, way = self.options, self.options.sampling or model.sampling
        return float(options.prompts * options.per_prompt * way.forward_passes)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Draw what is missing and compare; table ``diversity``.

        Figures: ``ms_ssim`` and ``ms_ssim_paper`` (means over pairs; lower is more diverse), each with ``_std``,
        ``_pairs`` and ``_undefined``; ``scales`` (5 unless images are small), ``prompts``, and ``paper_images``, the size
        of the pool.

        Raises:
            UserError: no folder to draw into, too small images, or images of other settings in the way.
        """
        options, place = self.options, folder_needed(out, "diversity")
        chosen = choose_prompts(split, options.prompts, options.seed)
        folder = place / "images" / "diversity"
        prompts = {f"{key}#{k}": text for key, text in chosen.items() for k in range(options.per_prompt)}
        with undisturbed(model), model.weights(options.ema):
            try:
                settings = draw_prompts(model, folder, prompts, options, show_progress=self.show_progress)
            except NotFiniteImages as error:
                return without_figures(error, "diversity", ("ms_ssim", "ms_ssim_paper"), FIRST)
        standard, paper = PairwiseSimilarity(255.0), PairwiseSimilarity(None)
        groups = [(key, [f"{key}#{k}" for k in range(options.per_prompt)]) for key in chosen]
        rows = self._compare("standard", groups, folder, standard, model.device)
        pool, shared = list(prompts), place / "images" / "fidelity"
        theirs = finished_keys(shared, settings)
        if len(theirs) >= PAPER_SET:
            folder, pool = shared, sorted(theirs)
        if options.paper_sets and len(pool) < PAPER_SET:
            raise UserError(
                f"diversity: sets of {PAPER_SET} cannot be drawn from {len(pool)} images: set prompts higher."
            )
        sets = [(f"{s:03d}", _draw_set(pool, s, options.seed)) for s in range(options.paper_sets)]
        rows += self._compare("paper", sets, folder, paper, model.device)
        figures: dict[str, float] = {}
        for metric, name, some in ((standard, "ms_ssim", groups), (paper, "ms_ssim_paper", sets)):
            if some:
                found = metric.compute()
                figures |= {name: found["mean"], **{f"{name}_{k}": found[k] for k in ("std", "pairs", "undefined")}}
                figures.setdefault("scales", found["scales"])
        figures |= {"prompts": float(len(chosen)), "paper_images": float(len(pool) if sets else 0)}
        return Result(figures, {"diversity": Table(rows, FIRST)})

    def _compare(
        self,
        protocol: str,
        groups: list[tuple[str, list[str]]],
        folder: Path,
        metric: PairwiseSimilarity,
        device: torch.device,
    ) -> list[Row]:
        """One row a pair of images; the metric takes each group."""
        with progress_bar(len(groups), "set", f"MS-SSIM, {protocol}", self.show_progress) as bar:
            for _, keys in groups:
                metric.update(read_images(folder, keys).to(device))
                bar.update()
        pairs = [(group, f"{a}|{b}") for group, keys in groups for a, b in combinations(keys, 2)]
        return [
            dict(zip(FIRST, (protocol, group, pair, value), strict=True))
            for (group, pair), value in zip(pairs, metric.pairs(), strict=True)
        ]


def choose_prompts(dataset: LatentShardsDataset, number: int, seed: int) -> dict[str, str]:
    """Key -> impression of ``number`` images with different impressions, chosen by (seed, key).

    Raises:
        UserError: there are not so many.
    """
    order = sorted(dataset.keys, key=lambda key: float(generator(seed, "diversity prompt", key).random()))
    place = {key: i for i, key in enumerate(dataset.keys)}
    texts: dict[str, str] = {}  # impression -> key
    for key in order:
        texts.setdefault(str(dataset.metadata(place[key])["impression"]), key)
        if len(texts) == number:
            return {key: text for text, key in texts.items()}
    raise UserError(
        f"The split {dataset.split!r} of {dataset.folder} has {len(texts)} different impressions, and {number} prompts are "
        f"asked for: set prompts to {len(texts)} or less."
    )


def _draw_set(pool: list[str], number: int, seed: int) -> list[str]:
    picks = generator(seed, "ms-ssim set", number).choice(len(pool), PAPER_SET, replace=False)
    return [pool[int(i)] for i in picks]
