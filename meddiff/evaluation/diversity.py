"""How different are images drawn for one prompt? Table 4: MS-SSIM, per prompt and as the paper's code computed it.

Source: Dombrowski et al. 2024, Table 4; spec/tradeoff.md section 7 and section 0 fact 9.
"""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.evaluation.drawing import draw_prompts, finished_keys, read_images
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.diversity import summarise_similarity
from meddiff.metrics.functional.ms_ssim import pairwise_similarity, scales_for
from meddiff.models.sampling import SamplingOptions
from meddiff.runs.tables import write_table
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
        if self.prompts < 1 or self.per_prompt < 2 or self.paper_sets < 0:
            raise UserError(
                f"diversity: prompts {self.prompts}, per_prompt {self.per_prompt}, paper_sets {self.paper_sets}; at least "
                "1 prompt with 2 images is needed, and no negative number of sets."
            )


def evaluate_diversity(
    module: Any, dataset: LatentShardsDataset, options: DiversityOptions, out: Path
) -> dict[str, float]:
    """Draw what is missing, compare, and write ``OUT/diversity.csv``.

    ``standard``: all pairs of images of one prompt, values in 0..255. ``paper``: pairs within sets of 4 images drawn from
    all images of all prompts, and the data range of each pair; the images of the fidelity evaluation where it has been
    finished with the same settings, else those of this one. A group of the table is a prompt's key, or a set.

    Returns:
        ``ms_ssim`` and ``ms_ssim_paper`` (means over pairs; lower is more diverse), each with ``_std``, ``_pairs`` and
        ``_undefined``; ``scales`` (5 unless images are small), ``prompts``, and ``paper_images``, the size of the pool.

    Raises:
        UserError: fewer than so many different impressions, too small images, or images of other settings in the way.
    """
    chosen = choose_prompts(dataset, options.prompts, options.seed)
    folder = out / "images" / "diversity"
    prompts = {f"{key}#{k}": text for key, text in chosen.items() for k in range(options.per_prompt)}
    with undisturbed(module), module.evaluated_weights(options.ema):
        settings = draw_prompts(module, folder, prompts, options)
    groups = [(key, [f"{key}#{k}" for k in range(options.per_prompt)]) for key in chosen]
    rows = _compare("standard", groups, folder, 255.0, module.device)
    pool, shared = list(prompts), out / "images" / "fidelity"
    theirs = finished_keys(shared, settings)
    if len(theirs) >= PAPER_SET:
        folder, pool = shared, sorted(theirs)
    if options.paper_sets and len(pool) < PAPER_SET:
        raise UserError(f"diversity: sets of {PAPER_SET} cannot be drawn from {len(pool)} images: set prompts higher.")
    sets = [(f"{s:03d}", _draw_set(pool, s, options.seed)) for s in range(options.paper_sets)]
    rows += _compare("paper", sets, folder, None, module.device)
    write_table(out / "diversity.csv", rows, FIRST)
    return _summary(rows, groups[0][1][0], out, len(chosen), len(pool) if sets else 0)


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


def _compare(
    protocol: str, groups: list[tuple[str, list[str]]], folder: Path, data_range: float | None, device: Any
) -> list[dict[str, Any]]:
    """One row a pair of images."""
    rows = []
    for group, keys in tqdm(groups, unit="set", desc=f"MS-SSIM, {protocol}", disable=not groups):
        values = pairwise_similarity(read_images(folder, keys).to(device), data_range).tolist()
        for (a, b), value in zip(combinations(keys, 2), values, strict=True):
            rows.append({"protocol": protocol, "group": group, "pair": f"{a}|{b}", "value": value})
    return rows


def _summary(rows: list[dict[str, Any]], example: str, out: Path, prompts: int, pool: int) -> dict[str, float]:
    summary: dict[str, float] = {}
    for protocol, name in (("standard", "ms_ssim"), ("paper", "ms_ssim_paper")):
        values = [row["value"] for row in rows if row["protocol"] == protocol]
        if values:
            found = summarise_similarity(values)
            summary |= {name: found["mean"], **{f"{name}_{k}": found[k] for k in ("std", "pairs", "undefined")}}
    height, width = read_images(out / "images" / "diversity", [example]).shape[-2:]
    return {
        **summary,
        "scales": float(scales_for(height, width)),
        "prompts": float(prompts),
        "paper_images": float(pool),
    }
