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
| mirrored_own, mirrored_twin | mirrored pairs: the map where its finding lies, and where it lies in the twin |
| own mask before other | images with findings A and B: how often A's word fits A's mask better than B's |

The results go into ``RUN/controls.json``, where the report finds them.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import yaml

from callbacks.grounding import GroundingCallback, grounding_rows, grounding_summary, localisation
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.attribution.grounding_pass import GroundingItem, ground
from meddiff.attribution.words import query_tokens
from meddiff.common.draws import generator
from meddiff.evaluation.mirrored_twins import mirrored, mirrored_cohort
from meddiff.evaluation.priors import grounding_controls
from meddiff.evaluation.samples import evaluation_latents
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import resize_maps
from meddiff.metrics.summary import summarise_defined
from meddiff.phantoms import PhantomOptions
from meddiff.preparation.prepare_phantom import phantom_folder
from meddiff.reports.page.tables import CONTROLS
from meddiff.runs.checkpoints import load_module
from meddiff.runs.tables import update_controls

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
        "absent_finding": summarise_defined(other_class(bench, trained)),
        "base": grounding_summary(bench.rows(start)),
        "untrained": grounding_summary(bench.rows(random)),
    }
    pairs = None
    if options is not None:
        pairs = mirrored(trained, mirrored_cohort(options, data["vae"], arguments.pairs), bench.options.steps)
        shown |= {"mirrored_own": pairs.own, "mirrored_twin": pairs.twin}
    print("| | " + " | ".join(COLUMNS) + " |\n|---|" + "---|" * len(COLUMNS))
    for name, row in shown.items():
        cells = [f"{row[column]:.2f}" if column in row else "" for column in COLUMNS]
        print(f"| {CONTROLS.get(name, name)} | " + " | ".join(cells) + " |")
    if pairs is not None:
        share = f"{100 * pairs.moved:.0f} % [{100 * pairs.low:.0f}, {100 * pairs.high:.0f}]"
        print(f"\nmirrored pairs: the map moves with the finding in {share} of {pairs.pairs}")
    if "own_beats_other" in shown["trained"]:
        print(f"own mask before another finding's: {100 * shown['trained']['own_beats_other']:.0f} %")
    update_controls(arguments.run, "grounding", {name: row for name, row in shown.items() if name != "trained"})


if __name__ == "__main__":
    main()
