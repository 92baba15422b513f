"""Training sets with a shortcut of known strength: the target is hit, held-out splits stay, and the stream is exact."""

import json
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from datamodules import ImageShardsDataModule, ShortcutDataModule, ShortcutLatentsDataModule
from datamodules.shortcut import BALANCED, FILE
from meddiff.common.errors import UserError
from meddiff.evaluation.provenance import split_digest
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.files import write_image
from tests.builders.prepared_folder import prepare_folder
from tests.builders.shard_samples import write_pictures

SIZES = {"train": 240, "val": 6, "fidelity": 90}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shortcut")
    write_pictures(out, SIZES, samples_per_shard=60, latents=True, tubes=True)
    return out


def module(folder: Path, rho: float = 0.95, confounder: str = "tube", **options: object) -> ShortcutDataModule:
    about = {"shards": str(folder), "batch_size": 16, "seed": 2, "resolution": 8}
    return ShortcutDataModule("Edema", confounder, rho, **(about | options))  # type: ignore[arg-type]


def agreement(split: LatentShardsDataset, confounder: str = "tube") -> float:
    rows = [split.metadata(place) for place in range(len(split))]
    return float(
        np.mean([("Edema" in row["labels"]) == (confounder in row["attributes"]["confounders"]) for row in rows])
    )


def marked(split: LatentShardsDataset, whole: LatentShardsDataset) -> set[str]:
    """Keys whose picture differs from the stored one."""
    return {
        key
        for place, key in enumerate(split.keys)
        if not np.array_equal(split.image(place), whole.image(whole.keys.index(key)))
    }


@pytest.mark.parametrize("rho", [0.5, 0.75, 0.95])
def test_pixels_and_latents_hit_the_target_with_sets_of_one_size(folder: Path, rho: float) -> None:
    pixels = module(folder, rho)
    latents = ShortcutLatentsDataModule("Edema", "tube", rho, shards=str(folder), seed=2)
    assert abs(agreement(pixels.dataset("train")) - rho) <= 0.02
    assert pixels.dataset("train").keys == latents.dataset("train").keys
    assert len(pixels.dataset("train")) == len(module(folder, 0.95).dataset("train")) >= 80
    control = agreement(ImageShardsDataModule(str(folder)).dataset("train"))
    assert abs(control - 0.5) < 0.1, "the cohort itself has no shortcut"


def test_held_out_splits_stay_and_one_is_balanced(folder: Path) -> None:
    data = module(folder)
    plain = ImageShardsDataModule(str(folder), resolution=8)
    for split in ("val", "fidelity"):
        assert data.dataset(split).keys == plain.dataset(split).keys
    balanced = data.dataset(BALANCED)
    assert set(balanced.keys) < set(plain.dataset("fidelity").keys)
    assert abs(agreement(balanced) - 0.5) <= 0.02
    assert split_digest(balanced) != split_digest(data.dataset("fidelity")) == split_digest(plain.dataset("fidelity"))
    loader = module(folder, test_split=BALANCED).test_dataloader()
    assert [key for batch in loader for key in batch["key"]] == balanced.keys


def test_an_epoch_is_the_chosen_set_once_and_goes_on_where_it_stood(folder: Path) -> None:
    data = module(folder, size=80, batch_size=20)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    seen = [next(batches) for _ in range(6)]  # an epoch and a half
    assert {key for batch in seen[:4] for key in batch["key"]} == {*data.dataset("train").keys}
    later = module(folder, size=80, batch_size=20, num_workers=1)
    later.setup("fit")
    later.images_consumed = 100
    batch = next(iter(later.train_dataloader()))
    assert batch["key"] == seen[5]["key"]
    assert torch.equal(batch["latents"], seen[5]["latents"])
    assert torch.equal(batch["noise"], seen[5]["noise"])


def test_stamps_are_drawn_on_the_chosen_pictures_and_on_no_others(folder: Path) -> None:
    data, whole = module(folder, confounder="stamp", resolution=32), ImageShardsDataModule(str(folder))
    part = data.dataset("train")
    stamped = marked(part, whole.dataset("train"))
    assert stamped == data.chosen("train").stamped
    edema = {key for place, key in enumerate(part.keys) if "Edema" in part.metadata(place)["labels"]}
    assert np.mean([(key in edema) == (key in stamped) for key in part.keys]) == pytest.approx(0.95, abs=0.02)
    assert marked(data.dataset("fidelity"), whole.dataset("fidelity")) == set()
    assert marked(data.dataset(BALANCED), whole.dataset("fidelity")) == data.chosen(BALANCED).stamped
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    bright = [
        key for key, pixels in zip(batch["key"], batch["latents"], strict=True) if bool((pixels[0, 2:5, 1] == 1).all())
    ]
    assert set(bright) == stamped & set(batch["key"])
    assert 0 < len(bright) < len(batch["key"])
    assert module(folder, 0.5, "stamp").dataset("train").keys == part.keys


def test_what_was_chosen_is_in_the_run_folder_and_in_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    data = module(folder)
    data.trainer = L.Trainer(default_root_dir=tmp_path, logger=False, enable_checkpointing=False, accelerator="cpu")
    data.setup("fit")
    told = json.loads((tmp_path / FILE).read_text())
    assert (told["finding"], told["confounder"]) == ("Edema", "tube")
    train = told["splits"]["train"]
    assert train["keys"] == data.dataset("train").keys
    assert train["agreement"] == pytest.approx(agreement(data.dataset("train")))
    assert train["phi"] == pytest.approx(0.9, abs=0.05)
    assert told["splits"][BALANCED]["phi"] == pytest.approx(0.0, abs=0.05)
    with pytest.warns(UserWarning, match="made with shortcut Edema, tube, 0.95"):
        module(folder, 0.5).load_state_dict(data.state_dict())


def test_what_cannot_be_is_one_sentence_before_anything_starts(folder: Path) -> None:
    def problem(**options: object) -> str:
        about = {"shards": str(folder), "finding": "Edema", "confounder": "tube", "resolution": 8}
        return " ".join(ShortcutDataModule.preflight(**(about | options)))

    assert problem() == ""
    assert "no sample has 'Pneumonia' (labels are Edema" in problem(finding="Pneumonia")
    assert "they reach" in problem(size=230)
    assert "pictures of 32 px" in problem(resolution=64)
    # an attribute of -1 is unknown, so that no sample is known not to have it; taken for negative, it is as good as the tube
    assert "0 A alone" in problem(confounder="PM")
    assert problem(confounder="PM", uncertain="negative") == ""
    with pytest.raises(UserError, match="drawn onto pictures"):
        ShortcutLatentsDataModule("Edema", "stamp", shards=str(folder))
    with pytest.raises(UserError, match="two things"):
        module(folder, confounder="Edema")
    with pytest.raises(UserError, match="local folder"):
        module(folder, shards="https://example.org/train-{00000..00001}.tar")


def test_columns_of_a_table_as_of_chexpert(tmp_path: Path) -> None:
    """1, 0, -1 and blank, through ``prepare folder``: blanks and uncertain ones are left out, or count as absent."""
    cells = [("1.0", "1.0"), ("0.0", "0.0"), ("1.0", "0.0"), ("0.0", "1.0"), ("-1.0", "1.0"), ("", "1.0")]
    lines = ["image,text,patient,split,Cardiomegaly,Support Devices"]
    for number in range(120):
        write_image(tmp_path / "in" / f"{number:03d}.png", number, size=(16, 16))
        lines.append(
            f"{number:03d}.png,chest,p{number},{'train' if number < 60 else 'fidelity'},{','.join(cells[number % 6])}"
        )
    (tmp_path / "in" / "meta.csv").write_text("\n".join(lines) + "\n")
    prepare_folder(tmp_path / "in", tmp_path / "out", Path("nowhere"), store="images")
    about = {"shards": str(tmp_path / "out"), "agreements": (0.5,), "resolution": 8}
    strict = ShortcutDataModule("Cardiomegaly", "Support Devices", 0.5, **about)  # type: ignore[arg-type]
    assert (strict.chosen("train").available, strict.chosen("train").unknown) == ((10, 10, 10, 10), 20)
    lenient = ShortcutDataModule(
        "Cardiomegaly",
        "Support Devices",
        0.5,
        uncertain="positive",
        blank="negative",
        **about,  # type: ignore[arg-type]
    )
    assert lenient.chosen("train").available == (20, 10, 20, 10)
    assert lenient.chosen("train").unknown == 0


def test_all_arguments_can_be_given_on_the_command_line(folder: Path) -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    flags = {"finding": "Edema", "confounder": "tube", "rho": "0.75", "shards": str(folder), "channels": "3"}
    given = [f"--data.{name}={value}" for name, value in {**flags, "batch_size": "4", "margins": "free"}.items()]
    data = parser.instantiate_classes(parser.parse_args(["--data=datamodules.ShortcutDataModule", *given])).data
    assert (data.rho, data.channels, data.batch_size, data.margins) == (0.75, 3, 4, "free")
