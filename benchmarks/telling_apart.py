"""Do words tell findings apart, and do maps follow the finding? ``python benchmarks/telling_apart.py RUN``.

The grounding split of a quickstart holds about a hundred pairs (word of finding A; masks of A and of another finding B of the
same image): a share of them is known to within 10 %. This script renders phantoms of other patients with two or more
findings each, about 1,200 pairs, and prints for the run's last checkpoint (or every one that it kept)

| column | meaning |
|---|---|
| own first | share of pairs in which A's word has a higher CNR on A's mask than on B's (95 % bootstrap interval over images) |
| own CNR, other CNR | means over the pairs; a map that only says where something is abnormal has the same in both |
| end token | the same share for the end token, which names no finding: the control |
| moves | share of mirrored pairs in which the map moves with the finding (`meddiff.evaluation.mirrored_twins`); chance 50 % |
| own place, twin's place | CNR where the finding lies, and where it lies in the twin: what anatomy alone is worth |

then the last checkpoint's mean CNR of each word (rows) on each finding (columns), and how much of the diagonal is the
word's own (what is left when the mean of its row and of its column are taken off). Chance is 50 %. Rows of the start (the
base model) and of the same network untrained come first. Phrases that name their finding by none of the query words are
left out, and counted.
"""

import argparse
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.attribution.grounding_pass import GroundingItem, ground, paper_timesteps
from meddiff.attribution.words import QUERY_WORDS, query_tokens, special_tokens
from meddiff.evaluation.mirrored_twins import mirrored, mirrored_cohort
from meddiff.evaluation.samples import evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import contrast_to_noise_ratio, resize_maps
from meddiff.metrics.statistics import bootstrap_interval, micro_mean
from meddiff.models.backbones import untrained_twin
from meddiff.phantoms import PhantomOptions
from meddiff.preparation.prepare_phantom import phantom_folder, prepare_phantom
from meddiff.runs.checkpoints import find_checkpoint, load_module
from meddiff.runs.open_run import images_seen, read_config

#: (image, label of the word, label of the finding it is scored on) -> CNR of (word, end token)
Table = dict[tuple[str, str, str], tuple[float, float]]


class Pairs:
    """Phrases about phantoms with several findings, and the exact masks of all findings of each image."""

    def __init__(self, shards: str, timesteps: int) -> None:
        self.dataset = LatentShardsDataModule(shards, batch_size=1).dataset("grounding")
        self.steps = paper_timesteps(timesteps)
        chosen, _ = grounding_samples(self.dataset, list(QUERY_WORDS))
        self.samples = [one for one in chosen if not query_tokens(one.phrase, QUERY_WORDS[one.label]).is_fallback]
        self.unnamed = len(chosen) - len(self.samples)

    def table(self, module: Any) -> Table:
        """CNR of every word's map on every finding of its image."""
        items = [
            GroundingItem(
                one.key,
                evaluation_latents(self.dataset, one.index, 0),
                one.phrase,
                torch.stack(
                    [query_tokens(one.phrase, QUERY_WORDS[one.label]).weights, special_tokens(one.phrase)["eos"]]
                ),
            )
            for one in self.samples
        ]
        found: Table = {}
        with undisturbed(module):
            maps = ground(module.unet, module.encode_texts, items, module.alphas_cumprod, self.steps)
            for i, heat in tqdm(maps, total=len(items), unit="phrase", leave=False):  # heat (2, h, w)
                sample = self.samples[i]
                full = resize_maps(heat, sample.size)  # (2, H, W)
                for name, mask in self.dataset.masks(sample.index).items():
                    if name in QUERY_WORDS:
                        scores = contrast_to_noise_ratio(full, torch.from_numpy(mask).expand(2, -1, -1))
                        found[sample.key, sample.label, name] = (float(scores[0]), float(scores[1]))
        return found


def compare(table: Table) -> dict[str, float]:
    """Share of pairs with the own mask first, its interval, the mean CNRs, and the end token's share."""
    pairs = [(key, label, name) for key, label, name in table if label != name]
    own = np.array([table[key, label, label] for key, label, _ in pairs])  # (N, 2)
    other = np.array([table[pair] for pair in pairs])
    first = (own > other).astype(float)
    low, high = bootstrap_interval(lambda w: micro_mean(first[None, :, 0], w), [key for key, _, _ in pairs])
    return {
        "pairs": float(len(pairs)),
        "first": first[:, 0].mean(),
        "low": low,
        "high": high,
        "own": own[:, 0].mean(),
        "other": other[:, 0].mean(),
        "eos_first": first[:, 1].mean(),
    }


def by_class(table: Table, labels: Sequence[str]) -> np.ndarray:
    """Mean CNR of the words of each class (rows) on the findings of each class (columns), (K, K)."""
    means = np.full((len(labels), len(labels)), np.nan)
    for row, word in enumerate(labels):
        for column, finding in enumerate(labels):
            values = [cnr for (_, one, other), (cnr, _) in table.items() if (one, other) == (word, finding)]
            if values:
                means[row, column] = np.mean(values)
    return means


def own_part(means: np.ndarray) -> np.ndarray:
    """The diagonal without what its row (how sharp the word is) and its column (how salient the finding is) explain, (K,).

    Example:
        >>> own_part(np.array([[3.0, 1.0], [2.0, 2.0]])).tolist()
        [0.5, 0.5]
    """
    rest = means - np.nanmean(means, axis=0) - np.nanmean(means, axis=1)[:, None] + np.nanmean(means)
    return np.diag(rest)


def networks(run: Path, model: dict[str, Any], every: bool) -> Iterator[tuple[str, LatentDiffusionModule]]:
    """The network untrained, the start, and the last checkpoint or all numbered ones, one at a time: (name, module)."""
    start = LatentDiffusionModule(**model)
    start.configure_model()
    untrained = deepcopy(start)
    untrained.unet = untrained_twin(start.unet)
    yield "untrained", untrained.eval()
    yield "0", start.eval()
    for file in sorted((run / "checkpoints").glob("step-*.ckpt")) if every else [find_checkpoint(run)]:
        yield f"{images_seen(file):,}", load_module(file)


def percent(share: float, low: float, high: float) -> str:
    """``64 % [61, 67]``."""
    return f"{100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--every_checkpoint", action="store_true", help="all checkpoints that the run kept")
    parser.add_argument("--phantoms", type=int, default=400, help="with two or more findings each")
    parser.add_argument("--timesteps", type=int, default=8)
    arguments = parser.parse_args()
    config = read_config(arguments.run)
    data, model = config["data"]["init_args"], config["model"]["init_args"]
    if "phantom" not in data:
        parser.error(f"{arguments.run} was not trained on phantoms: only of them are twins and all masks known")
    options = PhantomOptions(**data["phantom"])
    n = arguments.phantoms
    several = PhantomOptions(n=n, seed=options.seed + 2, val=0, fidelity=0, grounding=n, normal=0.0, multiple=1.0)
    folder = phantom_folder(several, data["vae"])
    prepare_phantom(several, folder, data["vae"])
    pairs = Pairs(folder, arguments.timesteps)

    print(f"{len(pairs.samples)} phrases about {n} phantoms; left out, naming no query word: {pairs.unnamed}\n")
    twins = mirrored_cohort(options, data["vae"])
    print("| images | pairs | own first | own CNR | other CNR | end token | moves | own place | twin's place |")
    print("|---|" + "---|" * 8)
    for name, module in networks(arguments.run, model, arguments.every_checkpoint):
        table = pairs.table(module)
        found, moving = compare(table), mirrored(module, twins, pairs.steps)
        cells = [
            f"{found['pairs']:.0f}",
            percent(found["first"], found["low"], found["high"]),
            f"{found['own']:.2f}",
            f"{found['other']:.2f}",
            f"{100 * found['eos_first']:.0f} %",
            percent(moving.moved, moving.low, moving.high),
            f"{moving.own['cnr']:.2f}",
            f"{moving.twin['cnr']:.2f}",
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    labels = list(QUERY_WORDS)
    means = by_class(table, labels)
    print("\n| word | " + " | ".join(labels) + " | its own |\n|---|" + "---|" * (len(labels) + 1))
    for label, row, own in zip(labels, means, own_part(means), strict=True):
        print(f"| {label} | " + " | ".join(f"{value:.2f}" for value in row) + f" | {own:.2f} |")


if __name__ == "__main__":
    main()
