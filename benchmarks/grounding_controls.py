"""Every grounding figure of a run beside what it has to be read against: ``python benchmarks/grounding_controls.py RUN``.

| row | what it would show |
|---|---|
| trained | the run's last checkpoint on the grounding split, phrases as they are |
| prior | mean box of the class in training: what place alone is worth |
| centre, random | a Gaussian in the middle of the image; noise |
| shuffled_captions | each image with the phrase of another one of its class: the word stays, side and place are wrong |
| absent_finding | each image asked for a finding it does not have: a map that follows the image alone stays as it is |
| base | the weights the run started from (the base model) |
| untrained | the same network, never trained |
| mirrored pairs (phantoms) | twins with the finding on the other side: how often the map's centre moves with it |
| own mask before other | images with findings A and B: how often A's word fits A's mask better than B's |

The results go into ``RUN/controls.json``, where the report finds them.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import yaml

from attribution.grounding import GroundingItem, ground
from attribution.words import QUERY_WORDS, query_tokens
from callbacks.evaluation import undisturbed
from callbacks.grounding import GroundingCallback, grounding_rows, grounding_summary, localisation
from callbacks.grounding_controls import grounding_controls
from callbacks.tables import update_controls
from common.draws import generator
from datamodules import LatentShardsDataModule
from datamodules.evaluation_sets import evaluation_latents, grounding_samples
from datamodules.phantom import phantom_folder
from lightning_modules import LatentDiffusionModule
from lightning_modules.checkpoint import load_module
from metrics.functional import resize_maps
from metrics.summary import summarise
from preparation.phantom import PhantomOptions
from preparation.prepare_phantom import prepare_phantom
from reports.tables import CONTROLS

COLUMNS = ("cnr", "macro_cnr", "auroc", "macro_auroc", "top1", "macro_top1", "mask_cnr", "eos_cnr", "n")


class Bench:
    """A data module and the options of the grounding pass, in the place of a trainer."""

    def __init__(
        self, shards: str, samples: int | None, timesteps: int, splits_from: dict[str, str] | None = None
    ) -> None:
        self.datamodule = LatentShardsDataModule(shards, batch_size=1, splits_from=splits_from)
        self.global_rank, self.world_size = 0, 1
        self.options = GroundingCallback(1, samples=samples, timesteps=timesteps)
        trainer: Any = self
        module: Any = None
        self.options.setup(trainer, module, "validate")

    def rows(self, module: Any, phrases: list[str] | None = None) -> list[dict[str, Any]]:
        trainer: Any = self
        with undisturbed(module):
            return grounding_rows(self.options, trainer, module, self.options.chosen, phrases)


def shuffled(bench: Bench) -> list[str]:
    """For each sample the phrase of another image about the same class: the word stays, side and place are wrong.

    Where the class has one image only, the phrase is its own.
    """
    phrases = []
    for sample in bench.options.chosen:
        others = [one.phrase for one in bench.options.chosen if one.label == sample.label and one.key != sample.key]
        draw = generator(0, "shuffled phrase", sample.key, sample.label)
        phrases.append(others[int(draw.integers(len(others)))] if others else sample.phrase)
    return phrases


def other_class(bench: Bench, module: Any) -> list[dict[str, Any]]:
    """Rows in which every image is asked for a finding it does not have, scored on the box of the one it has."""
    chosen, rows = bench.options.chosen, []
    dataset = bench.datamodule.dataset("grounding")
    items, scored = [], []
    for sample in chosen:
        present = set(dataset.metadata(sample.index)["labels"])
        others = [one for one in chosen if one.label not in present]
        if not others:
            continue
        other = others[int(generator(0, "other class", sample.key, sample.label).integers(len(others)))]
        weights = query_tokens(other.phrase, bench.options.query_words[other.label]).weights
        items.append(
            GroundingItem(sample.key, evaluation_latents(dataset, sample.index, 0), other.phrase, weights[None])
        )
        scored.append(sample)
    with undisturbed(module):
        for i, heat in ground(module.unet, module.encode_texts, items, module.alphas_cumprod, bench.options.steps):
            found = localisation(resize_maps(heat, scored[i].size)[0], torch.from_numpy(scored[i].box_mask()))
            rows.append({"class": scored[i].label, "miou": None, **found})
    return rows


def mirrored(module: Any, shards: str, timesteps: list[int]) -> tuple[float, int]:
    """Share of mirrored pairs whose maps' centres of mass lie on the side where the finding is, twin against twin."""
    dataset = LatentShardsDataModule(shards, batch_size=1).dataset("grounding")
    samples, _ = grounding_samples(dataset, list(QUERY_WORDS))
    pairs: dict[tuple[int, str], list[Any]] = {}
    for sample in samples:
        sides = {site[0] for site in dataset.metadata(sample.index)["attributes"]["findings"][sample.label]["sites"]}
        if len(sides) == 1 and sample.label != "Cardiomegaly":  # one side only: the heart and both sides do not move
            pairs.setdefault((int(sample.key.split("-")[1]) // 2, sample.label), []).append(sample)
    twins = [pair for pair in pairs.values() if len(pair) == 2]
    flat = [sample for pair in twins for sample in pair]
    items = [
        GroundingItem(
            one.key, evaluation_latents(dataset, one.index, 0), one.phrase,
            query_tokens(one.phrase, QUERY_WORDS[one.label]).weights[None],
        )
        for one in flat
    ]  # fmt: skip
    centres = {}
    with undisturbed(module):
        for i, heat in ground(module.unet, module.encode_texts, items, module.alphas_cumprod, timesteps):
            map_ = heat[0] - heat[0].min()
            centres[i] = float((map_.sum(0) * torch.arange(map_.shape[1])).sum() / map_.sum())
    right = 0
    for place in range(len(twins)):
        truth = [float(one.boxes[:, 0].mean() + one.boxes[:, 2].mean() / 2) for one in twins[place]]
        moved = centres[2 * place] - centres[2 * place + 1]
        right += (moved > 0) == (truth[0] > truth[1])
    return right / max(1, len(twins)), len(twins)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=None, help="phrases; all by default")
    parser.add_argument("--timesteps", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=160, help="phantoms of the mirrored cohort")
    arguments = parser.parse_args()
    config = yaml.safe_load((arguments.run / "config.yaml").read_text())
    data, model = config["data"]["init_args"], config["model"]["init_args"]
    options = PhantomOptions(**data["phantom"]) if "phantom" in data else None
    shards = data["shards"] if options is None else data.get("shards") or phantom_folder(options, data["vae"])
    bench = Bench(shards, arguments.samples, arguments.timesteps, data.get("splits_from"))
    trained = load_module(arguments.run)
    start = LatentDiffusionModule(**model)
    start.configure_model()
    plain = dict(start.unet.config.items())
    random = LatentDiffusionModule(**{**model, "unet": {k: v for k, v in plain.items() if not k.startswith("_")}})
    random.configure_model()
    train = bench.datamodule.dataset("train")
    shown = {
        "trained": grounding_summary(bench.rows(trained)),
        **grounding_controls(train, bench.options.chosen, list(bench.options.query_words)),
        "shuffled_captions": grounding_summary(bench.rows(trained, shuffled(bench))),
        "absent_finding": grounding_means(other_class(bench, trained)),
        "base": grounding_summary(bench.rows(start)),
        "untrained": grounding_summary(bench.rows(random)),
    }
    print("| | " + " | ".join(COLUMNS) + " |\n|---|" + "---|" * len(COLUMNS))
    for name, row in shown.items():
        cells = [f"{row[column]:.2f}" if column in row else "" for column in COLUMNS]
        print(f"| {CONTROLS.get(name, name)} | " + " | ".join(cells) + " |")
    if options is not None:
        print_mirrored(trained, options, data["vae"], arguments.pairs, bench.options.steps)
    if "own_beats_other" in shown["trained"]:
        print(f"own mask before another finding's: {100 * shown['trained']['own_beats_other']:.0f} %")
    update_controls(arguments.run, "grounding", {name: row for name, row in shown.items() if name != "trained"})


def print_mirrored(module: Any, options: PhantomOptions, vae: str, pairs: int, timesteps: list[int]) -> None:
    """Render mirrored pairs of other patients than ``options`` has, and print how the maps move with the finding."""
    twins = PhantomOptions(
        n=pairs,
        seed=options.seed + 1,
        mirrored_pairs=True,
        val=0,
        fidelity=0,
        grounding=pairs,
        normal=0.0,
        multiple=0.2,
    )
    folder = phantom_folder(twins, vae)
    prepare_phantom(twins, folder, vae, show_progress=False)
    share, number = mirrored(module, folder, timesteps)
    print(f"\nmirrored pairs: the map moves with the finding in {100 * share:.0f} % of {number}")


def grounding_means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """As :func:`metrics.summary.summarise`, without undefined entries."""
    return {name: value for name, value in summarise(rows).items() if value == value}


if __name__ == "__main__":
    main()
