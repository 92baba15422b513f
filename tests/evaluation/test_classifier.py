"""The classifier part: who is drawn and scored, AUROC from its file, and the shipped classifier on real phantoms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.evaluation.classifier import Classifier, ClassifierOptions, class_prompts, load_judge
from meddiff.evaluation.drawing import draw_prompts
from meddiff.models.domain_classifier import build_classifier, save_classifier
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.xrv import DENSENET_121, default_pathologies
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import QUICK, make_classifier, make_model, make_split, run_part, stamps
from tests.builders.tiny import make_shards

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    return make_split(tmp_path_factory.mktemp("cohort") / "phantom", vae_folder, 30)


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    return make_model(vae_folder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier") / "one")


def exact_images(split: LatentShardsDataset) -> dict[str, list[int]]:
    labels = [split.metadata(i)["labels"] for i in range(len(split))]
    return {name: [i for i, names in enumerate(labels) if names == [name]] for name in (*FINDINGS, NO_FINDING)}


def test_numbers_are_scikit_learns_over_the_table(
    split: LatentShardsDataset, classifier: Path, model: LatentDiffusion, tmp_path: Path
) -> None:
    options = ClassifierOptions(classifier=str(classifier), per_class=3, sampling=QUICK, batch_size=8)
    found = run_part(Classifier(options), model, split, tmp_path)
    rows = read_table(tmp_path / "classifier.csv")
    assert list(rows[0]) == ["source", "class", "key", "label", "score"]
    exact = exact_images(split)
    for source, end in (("drawn", ""), ("real", "_real")):
        values = []
        for name in FINDINGS:
            mine = [row for row in rows if (row["source"], row["class"]) == (source, name)]
            truth, scores = [int(row["label"]) for row in mine], [float(row["score"]) for row in mine]
            drawn = 3 if exact[name] else 0
            assert sum(truth) == found[f"{name}/n{end}"] == (len(exact[name]) if end else drawn)
            assert truth.count(0) == found[f"{NO_FINDING}/n{end}"] == (len(exact[NO_FINDING]) if end else 3)
            if exact[name]:
                values.append(roc_auc_score(truth, scores))
                assert found[f"{name}/auc{end}"] == pytest.approx(values[-1], abs=1e-6)
            else:
                assert math.isnan(found[f"{name}/auc{end}"])
        assert found[f"classifier_auc{end}"] == pytest.approx(np.mean(values), abs=1e-6)

    folder = tmp_path / "images" / "classifier"
    before = stamps(folder)
    assert len(before) == 3 * sum(bool(indices) for indices in exact.values())
    assert run_part(Classifier(options), model, split, tmp_path) == pytest.approx(found, nan_ok=True)
    assert stamps(folder) == before


def test_prompts_are_impressions_of_images_with_exactly_that_label(split: LatentShardsDataset) -> None:
    exact, options = exact_images(split), ClassifierOptions(per_class=7)
    prompts, wanted = class_prompts(split, exact, options)
    for key, text in prompts.items():
        own, _, turn = key.partition("#")
        metadata = split.metadata(split.keys.index(own))
        assert metadata["labels"] == [wanted[key]]
        assert metadata["impression"] == text
        assert not turn or int(turn) <= 7 // len(exact[wanted[key]])
    for name, indices in exact.items():
        assert list(wanted.values()).count(name) == (7 if indices else 0)
    fewer, _ = class_prompts(split, exact, ClassifierOptions(per_class=4))
    assert fewer.items() <= prompts.items(), "a larger evaluation keeps its images"


def test_images_that_fidelity_has_drawn_are_not_drawn_again(
    split: LatentShardsDataset, classifier: Path, model: LatentDiffusion, tmp_path: Path
) -> None:
    options = ClassifierOptions(classifier=str(classifier), per_class=2, sampling=QUICK)
    exact = exact_images(split)
    key = class_prompts(split, exact, options)[0]
    borrowed = next(iter(key))
    shared = tmp_path / "images" / "fidelity"
    draw_prompts(model, shared, {borrowed: key[borrowed]}, options)
    marked = (shared / f"{borrowed}.png").read_bytes() + b"mark"  # a PNG may have a tail
    (shared / f"{borrowed}.png").write_bytes(marked)
    run_part(Classifier(options), model, split, tmp_path)
    assert (tmp_path / "images" / "classifier" / f"{borrowed}.png").read_bytes() == marked


def test_the_shipped_classifier_recognises_real_phantoms(tmp_path: Path) -> None:
    """The whole part with the shipped models: real phantoms are told apart, images of two steps are not."""
    base = "assets/phantom_base"
    folder = make_shards(tmp_path / "cohort", Path("assets/phantom_vae"), 34, 128, val=2, grounding=2, fidelity=28)
    model = LatentDiffusion.build(base, base, "assets/phantom_vae").eval()
    options = ClassifierOptions(per_class=1, sampling=QUICK)
    found = run_part(Classifier(options), model, LatentShardsDataset(folder, "fidelity"), tmp_path / "out")
    assert found["classifier_auc_real"] > 0.9


def test_torchxrayvisions_outputs_are_matched_by_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = build_classifier(DENSENET_121, default_pathologies()).eval()
    # the published file carries operating points, which change no ranking
    save_file({**network.state_dict(), "op_threshs": torch.zeros(18)}, tmp_path / "xrv.safetensors")
    judge = load_judge(str(tmp_path / "xrv.safetensors"), CPU)
    assert judge.classes == FINDINGS
    images = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        logits = network(images.mean(1, keepdim=True) * 1024)
    places = [default_pathologies().index({"Pleural Effusion": "Effusion"}.get(name, name)) for name in FINDINGS]
    torch.testing.assert_close(judge.scores(images), logits[:, places])


def test_what_cannot_be_classified_is_told(
    split: LatentShardsDataset, model: LatentDiffusion, classifier: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="No classifier at"):
        run_part(Classifier(ClassifierOptions(classifier=str(tmp_path / "none"))), model, split, tmp_path)
    network = {"growth_rate": 8, "block_config": [2, 2], "num_init_features": 8}
    save_classifier(build_classifier(network, ["cat", "dog"]), network, tmp_path / "animals")
    with pytest.raises(UserError, match="none of Atelectasis"):
        load_judge(str(tmp_path / "animals"), CPU)
    with pytest.raises(UserError, match="at least one image a class"):
        ClassifierOptions(per_class=0)
