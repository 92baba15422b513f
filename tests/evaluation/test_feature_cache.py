"""Features of real images are kept, found again, and forgotten as soon as anything that makes them changes."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.evaluation.feature_cache import (
    address_file,
    cache_folder,
    features_address,
    read_features,
    real_features,
    write_features,
)
from meddiff.models.feature_extractors import build_extractor, extractor_identity
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import make_classifier, make_split, one_pixel_darker, rewrite_split

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    return make_split(tmp_path_factory.mktemp("cohort") / "phantom", vae_folder, 8)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier") / "one")


def name_of(dataset: LatentShardsDataset, classifier: Path, indices: range = range(4)) -> str:
    identity = extractor_identity("domain", str(classifier))
    return address_file(Path(), features_address(dataset, indices, identity, CPU)).name


def test_the_address_follows_images_weights_indices_and_split(
    split: LatentShardsDataset, classifier: Path, tmp_path: Path
) -> None:
    before = name_of(split, classifier)
    shutil.copytree(split.folder, tmp_path / "copy")
    shutil.copytree(classifier, tmp_path / "classifier")
    assert name_of(LatentShardsDataset(tmp_path / "copy", "fidelity"), tmp_path / "classifier") == before

    def darker(name: str, payload: bytes) -> bytes:
        return one_pixel_darker(payload) if name == f"{split.keys[0]}.png" else payload

    rewrite_split(split, tmp_path / "changed", darker)
    changed = LatentShardsDataset(tmp_path / "changed", "fidelity")
    assert (changed.image(0) != split.image(0)).sum() == 1  # one pixel of one image
    assert name_of(changed, classifier) != before
    assert name_of(split, make_classifier(tmp_path / "other", seed=1)) != before
    assert name_of(split, classifier, range(5)) != before
    assert name_of(split, classifier, range(1, 5)) != before
    assert name_of(LatentShardsDataset(split.folder, "val"), classifier) != before
    assert name_of(split.only(np.arange(2, 8)), classifier) != before, "the same numbers in a part are other images"
    identity = extractor_identity("domain", str(classifier))
    ours = features_address(split, range(4), identity, CPU)
    assert features_address(split, range(4), identity, torch.device("cuda")) != ours
    assert features_address(split, range(4), {**identity, "version": 99}, CPU) != ours


class Counted:
    """An extractor that counts the images it has seen."""

    def __init__(self, classifier: Path) -> None:
        self.extract, self.images = build_extractor("domain", str(classifier), CPU), 0

    def __call__(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.extract(images)


def test_features_are_computed_once(split: LatentShardsDataset, classifier: Path, tmp_path: Path) -> None:
    extractor, weights = Counted(classifier), {"domain": str(classifier)}

    def features(batch_size: int = 3) -> Tensor:
        return real_features(split, range(1, 6), weights, {"domain": extractor}, CPU, batch_size, tmp_path)["domain"]

    first = features()
    assert extractor.images == 5
    assert torch.equal(features(2), first)
    assert extractor.images == 5
    torch.testing.assert_close(
        first, extractor(torch.stack([torch.from_numpy(split.image(i).copy()).float() for i in range(1, 6)])[:, None]
                         .expand(-1, 3, -1, -1) / 127.5 - 1)
    )  # fmt: skip


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_warned_of_and_computed_again(
    split: LatentShardsDataset, classifier: Path, tmp_path: Path, damage: str
) -> None:
    extractor, weights = Counted(classifier), {"domain": str(classifier)}
    first = real_features(split, range(4), weights, {"domain": extractor}, CPU, 4, tmp_path)["domain"]
    (file,) = tmp_path.glob("*.safetensors")
    data = file.read_bytes()
    file.write_bytes({"cut": data[:-7], "flipped": data[:-3] + bytes([data[-3] ^ 1]) + data[-2:], "empty": b""}[damage])
    with pytest.warns(UserWarning, match="computed again"):
        again = real_features(split, range(4), weights, {"domain": extractor}, CPU, 4, tmp_path)["domain"]
    assert torch.equal(again, first)
    assert extractor.images == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(
            real_features(split, range(4), weights, {"domain": extractor}, CPU, 4, tmp_path)["domain"], first
        )


def test_features_lie_beside_the_shards_or_with_the_evaluation(tmp_path: Path) -> None:
    shards, out = tmp_path / "shards", tmp_path / "out"
    shards.mkdir()
    assert cache_folder(shards, out) == shards / ".statistics"
    assert list((shards / ".statistics").iterdir()) == []
    blocked = tmp_path / "blocked"  # root may write anywhere, so a file stands in the folder's way
    blocked.mkdir()
    (blocked / ".statistics").write_text("")
    assert cache_folder(blocked, out) == out / ".statistics"


def test_a_folder_that_cannot_be_written_to_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    address = {"extractor": "domain"}
    with pytest.warns(UserWarning, match="not kept"):
        write_features(tmp_path / "file", address, torch.zeros(2, 2))
    assert read_features(tmp_path / "none", address) is None
