"""How well could prototypes know findings at all? Probes of the same images under encoders that were trained in other ways.

``python benchmarks/prototype_ceiling.py SHARDS [--config configs/patronus_quickstart.yaml] [--epochs 20]`` prints the macro
AUROC of the findings that a linear probe reads, in five folds of the training images (as ``lightning evaluate prototypes``
does), from

- **pca**: as many principal components of the latents as there are prototypes;
- **untrained**: the encoder of the configuration with random weights;

and, on held-out images that no training saw,

- **labels**: the same encoder with a linear head, taught the labels themselves. What it does not reach, no training
  without labels can be asked for.

The ratio says how much of that way from chance the untrained encoder goes already. Source: own.
"""

import argparse

import numpy as np
import torch
import yaml
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from meddiff.common.findings import FINDINGS
from meddiff.common.places import locate
from meddiff.evaluation.prototype_inputs import inputs_of
from meddiff.metrics.functional.latent_probe import latent_auroc
from meddiff.models.prototype_options import PrototypeOptions, encoder_of
from meddiff.shards.dataset import LatentShardsDataset


def images_of(folder: str, split: str) -> tuple[Tensor, Tensor]:
    """Latents (N, C, h, w) and findings (N, 8)."""
    found = LatentShardsDataset(folder, split)
    inputs = inputs_of(found)
    flags = [[float(name in found.metadata(one)["labels"]) for name in FINDINGS] for one in range(len(found))]
    return torch.stack([inputs(one) for one in range(len(found))]), torch.tensor(flags)


def probed(values: Tensor, flags: Tensor) -> float:
    """Macro AUROC of linear probes in five folds."""
    return latent_auroc(values.double(), flags.double()).mean.value


def taught(options: PrototypeOptions, train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], epochs: int) -> float:
    """Macro AUROC on held-out images of the encoder with a head, trained on labels."""
    torch.manual_seed(0)
    encoder, head = encoder_of(options, train[0].shape[1]), nn.Linear(options.number, len(FINDINGS))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 2e-3)
    for _ in range(epochs):
        for some in torch.randperm(len(train[0])).split(32):
            loss = nn.functional.binary_cross_entropy_with_logits(head(encoder(train[0][some])), train[1][some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        scores = head(encoder(held[0]))
    return float(np.mean([roc_auc_score(held[1][:, one], scores[:, one]) for one in range(len(FINDINGS))]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What an encoder of prototypes could know of findings.")
    parser.add_argument("shards", help="folder of latent shards with findings as labels")
    parser.add_argument("--config", default="configs/patronus_quickstart.yaml")
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    with open(locate(given.config), encoding="utf-8") as stream:
        options = PrototypeOptions(**yaml.safe_load(stream)["model"]["init_args"]["prototypes"])
    train, held = images_of(given.shards, "train"), images_of(given.shards, "fidelity")
    torch.manual_seed(0)
    with torch.no_grad():
        untrained = probed(encoder_of(options, train[0].shape[1])(train[0]), train[1])
    flat = train[0].flatten(1).numpy()
    pca = probed(torch.from_numpy(PCA(options.number, random_state=0).fit_transform(flat)), train[1])
    labels = taught(options, train, held, given.epochs)
    print(f"{len(train[0])} training images, {len(held[0])} held out: AUROC of findings")
    print(
        f"pca {pca:.3f}  untrained {untrained:.3f}  labels {labels:.3f}  ratio {(untrained - 0.5) / (labels - 0.5):.2f}"
    )


if __name__ == "__main__":
    main()
