"""What ships with the repository: small enough, what its card says, and as good as the documents claim."""

from pathlib import Path

import pytest
import torch
from torchmetrics.classification import MultilabelAUROC

from meddiff.common.findings import FINDINGS
from meddiff.models.domain_classifier import build_classifier, load_classifier, xrv_input
from meddiff.phantoms import PhantomCohort, PhantomOptions

ASSETS = Path(__file__).parent.parent / "meddiff" / "assets"


@pytest.mark.parametrize("folder", sorted(path.name for path in ASSETS.iterdir()))
def test_parts_are_small(folder: str) -> None:
    size = sum(file.stat().st_size for file in (ASSETS / folder).rglob("*") if file.is_file())
    assert 1e5 < size <= 4e6


def test_the_classifier_tells_findings_apart_on_phantoms_of_another_seed() -> None:
    """Held to 0.9 on 250 fresh phantoms; an untrained twin stays near chance."""
    cohort = PhantomCohort(PhantomOptions(n=250, seed=4321, normal=0.3))
    samples = [cohort[index] for index in range(len(cohort))]
    images = torch.stack([torch.from_numpy(one.image).float()[None] / 127.5 - 1 for one in samples])  # (N, 1, H, W)
    targets = torch.tensor([[int(name in one.labels) for name in FINDINGS] for one in samples])
    trained = load_classifier(ASSETS / "phantom_classifier")
    torch.manual_seed(0)
    network = {"growth_rate": 16, "block_config": [3, 6, 8, 6], "num_init_features": 32}
    untrained = build_classifier(network, list(FINDINGS)).eval()
    scores = []
    for model in (trained, untrained):
        with torch.no_grad():
            logits = torch.cat([model(xrv_input(part)) for part in images.split(50)])
        scores.append(float(MultilabelAUROC(num_labels=len(FINDINGS))(logits, targets)))
    print(f"macro AUROC: trained {scores[0]:.3f}, untrained {scores[1]:.3f}")
    assert scores[0] > 0.9 > 0.7 > scores[1]
