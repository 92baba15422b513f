"""Natural images through torchvision's own readers: published splits, attributes, the hair and smile selection, pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import ImageShardsDataModule
from meddiff.cli.prepare import main
from meddiff.common.errors import UserError
from meddiff.preparation.cohorts.torchvision_sets import TorchvisionOptions, groups
from meddiff.preparation.geometry import resize_image
from meddiff.preparation.prepare_cohort import prepare_reading, read_cohort
from meddiff.shards.pixels import PicturesDataset
from tests.builders.prepared_folder import HERE
from tests.builders.torchvision_trees import FACES, write_celeba, write_cifar10, write_fashion_mnist


@pytest.fixture
def any_check_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision compares check sums of the whole data sets, which a tiny one cannot have."""
    for module in ("celeba", "cifar"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).is_file()
        )


def celeba(root: Path, selection: str = "all") -> "object":
    return read_cohort("torchvision", root, TorchvisionOptions("celeba", selection))  # type: ignore[arg-type]


@pytest.mark.usefixtures("any_check_sum")
def test_celeba_has_its_splits_people_and_attributes(tmp_path: Path) -> None:
    reading = celeba(write_celeba(tmp_path))
    records = reading.records  # type: ignore[attr-defined]
    assert [record.split for record in records] == ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    assert [record.patient_id for record in records[:4]] == ["1", "1", "2", "2"]
    assert records[1].labels == ("Black_Hair", "Male", "Smiling")
    assert records[1].impression == "black hair, male, smiling"
    assert records[0].attributes["Smiling"] == 0  # -1 in the file is absent, not uncertain
    assert (records[0].path, records[0].key) == ("celeba/img_align_celeba/000001.jpg", "celeba-000001")


@pytest.mark.usefixtures("any_check_sum")
def test_the_published_selection_with_its_counts(tmp_path: Path) -> None:
    root = write_celeba(tmp_path)
    one, biased = celeba(root, "one_hair"), celeba(root, "hair_smile")
    single = [face for face in FACES if sum(face[:3]) == 1]
    assert len(one.records) == len(single) == 10  # type: ignore[attr-defined]
    assert biased.funnel.rows() == [  # type: ignore[attr-defined]
        ("read", 12, 0),
        ("exactly one of black, blond and brown hair", 10, 2),
        ("blond or brown hair with a smile, black without", 7, 3),
    ]
    kept = [FACES[int(record.key[-6:]) - 1] for record in biased.records]  # type: ignore[attr-defined]
    assert all((smile == 1) != (black == 1) for black, _, _, smile in kept)
    assert (
        biased.options["groups"]
        == groups(biased.records)
        == {  # type: ignore[attr-defined]
            "Black_Hair without Smiling": 3,
            "Blond_Hair and Smiling": 2,
            "Brown_Hair and Smiling": 2,
        }
    )
    # the published correlation of smile and black hair, and that of the control
    table = np.asarray(kept)
    assert np.corrcoef(table[:, 3], table[:, 0])[0, 1] == pytest.approx(-1.0)
    assert np.corrcoef(np.asarray(single)[:, 3], np.asarray(single)[:, 0])[0, 1] > -0.9
    with pytest.raises(UserError, match="CelebA's"):
        TorchvisionOptions("cifar10", "one_hair")


@pytest.mark.usefixtures("any_check_sum")
def test_pictures_out_of_archives_go_into_shards_and_batches(tmp_path: Path) -> None:
    root, first = write_cifar10(tmp_path / "in")
    reading = read_cohort("torchvision", root, TorchvisionOptions("cifar10"))
    manifest = prepare_reading(reading, tmp_path / "out", "", 32, HERE, show_progress=False, store="images")
    assert manifest is not None
    assert (manifest.cohort, manifest.access, manifest.samples("train"), manifest.samples("test")) == (
        *("cifar10", "public"),
        *(10, 2),
    )
    data = ImageShardsDataModule(str(tmp_path / "out"), batch_size=5, channels=3, val_split="test")
    split = data.dataset("train")
    assert np.array_equal(split.image(0), first[0])
    assert split.metadata(1)["labels"] == ["bird"]
    assert split.metadata(1)["attributes"]["class"] == 2
    batch = next(iter(data.val_dataloader()))
    assert batch["latents"].shape == (2, 3, 32, 32)
    assert batch["caption"] == ["airplane", "bird"]


def test_grey_ones_stay_grey_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, images = write_fashion_mnist(tmp_path / "in")
    out = tmp_path / "out"
    told = ["torchvision", "--dataset", "fashion_mnist", "--root", str(root), "--out", str(out), "--store", "images"]
    assert main([*told, "--accelerator", "cpu", "--devices", "1"]) == 0
    assert "pictures of 32 px" in capsys.readouterr().out
    split = PicturesDataset(out, "train")
    assert np.array_equal(split.image(1), resize_image(images[1], 32))
    assert torch.from_numpy(split.latent(0)).shape == (1, 32, 32)
    assert [split.metadata(i)["labels"] for i in range(3)] == [["Ankle boot"], ["T-shirt/top"], ["Dress"]]
    assert main([*told, "--dry_run"]) == 0


@pytest.mark.parametrize("dataset", ["celeba", "cifar10", "fashion_mnist"])
def test_what_is_not_there_is_not_downloaded(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is downloaded here"):
        read_cohort("torchvision", tmp_path, TorchvisionOptions(dataset))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
