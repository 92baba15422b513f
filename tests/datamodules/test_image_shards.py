"""Pixels in the place of latents: the same stream and draws, whatever the ranks, workers, batches and resumes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import ImageShardsDataModule, LatentShardsDataModule, PhantomPixelsDataModule
from datamodules.datasets import TrainStream
from meddiff.common.errors import UserError
from meddiff.evaluation.samples import evaluation_latents
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.shards.batches import LatentBatch
from tests.builders.shard_samples import PIXELS, make_pair, write_folder, write_pictures

SIZES = {"train": 23, "val": 5, "grounding": 4, "fidelity": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictures")
    write_pictures(out, SIZES)
    return out


def module(folder: Path, **options: object) -> ImageShardsDataModule:
    return ImageShardsDataModule(str(folder), **({"batch_size": 8, "seed": 3} | options))  # type: ignore[arg-type]


def first(data: LatentShardsDataModule, n: int, start: int = 0) -> dict[tuple[int, str], dict[str, object]]:
    """(epoch, key) -> all else of a sample, of the first ``n`` batches of this module's own loader."""
    data.setup("fit")
    data.images_consumed = start
    batches = iter(data.train_dataloader())
    return items(next(batches) for _ in range(n))


def items(batches: "object") -> dict[tuple[int, str], dict[str, object]]:
    found: dict[tuple[int, str], dict[str, object]] = {}
    for batch in batches:  # type: ignore[attr-defined]
        for place, name in enumerate(zip(batch["epoch"], batch["key"], strict=True)):
            found[name] = {field: values[place] for field, values in batch.items() if field not in ("epoch", "key")}
    return found


def same(one: dict[tuple[int, str], dict[str, object]], other: dict[tuple[int, str], dict[str, object]]) -> bool:
    """Every sample of the one is in the other, to the last bit."""
    return all(
        torch.equal(value, other[name][field]) if isinstance(value, torch.Tensor) else value == other[name][field]  # type: ignore[arg-type]
        for name, fields in one.items()
        for field, value in fields.items()
    )


def test_pixels_are_those_that_were_stored(folder: Path) -> None:
    found = first(module(folder), 2)
    assert len(found) == 16
    for (_, key), fields in found.items():
        pixels = fields["latents"]
        assert isinstance(pixels, torch.Tensor)
        assert (pixels.shape, pixels.dtype) == ((1, PIXELS, PIXELS), torch.float32)
        assert -1 <= pixels.min() < pixels.max() <= 1
        stored = make_pair("train", int(key[1:]))[0].image
        assert np.array_equal(((pixels[0] + 1) * 127.5).round().numpy(), stored)


def test_ranks_workers_batches_and_resume_change_nothing(folder: Path) -> None:
    whole = first(module(folder), 7)  # more than two epochs
    assert {epoch for epoch, _ in whole} == {0, 1, 2}
    assert same(whole, first(module(folder, num_workers=2), 7))
    assert same(whole, first(module(folder, batch_size=14), 4))
    later = first(module(folder), 3, start=32)
    assert len(later) == 24
    assert same(later, whole)
    assert {*first(module(folder), 4), *later} == {*whole}
    data = module(folder)
    for rank in range(2):
        stream = TrainStream(data.dataset("train"), data._rules(), 8, lambda: 0, rank, 2, 2)
        mine = stream.batches(0, 0, 1)
        assert same(items(next(mine) for _ in range(14)), whole)
    other = first(module(folder, seed=4), 3)
    assert not same({name: whole[name] for name in other if name in whole}, other)


def test_every_draw_is_that_of_the_latents(tmp_path: Path) -> None:
    """On a folder with both: the same order, captions, timesteps and dropouts."""
    write_pictures(tmp_path, SIZES, latents=True)
    pixels = first(module(tmp_path, resolution=4), 3)
    latents = first(LatentShardsDataModule(str(tmp_path), batch_size=8, seed=3), 3)
    assert list(pixels) == list(latents)
    shared = ("caption", "labels", "timestep_uniform", "dropout_uniform", "weight")
    assert same({name: {field: one[field] for field in shared} for name, one in pixels.items()}, latents)


def test_smaller_pictures_are_area_means_and_channels_are_asked_for(folder: Path) -> None:
    data = module(folder, resolution=8, channels=3)
    batch: LatentBatch = next(iter(data.val_dataloader()))
    assert batch["latents"].shape == (5, 3, 8, 8)
    assert batch["epoch"] == [-1] * 5
    image = make_pair("val", 0)[0].image.astype(float)
    means = image.reshape(8, 4, 8, 4).mean(axis=(1, 3)) / 127.5 - 1
    assert batch["latents"][0].numpy() == pytest.approx(np.stack([means] * 3), abs=1e-5)  # float32
    odd = module(folder, resolution=12).dataset("val").latent(0)
    assert odd.mean() == pytest.approx(image.mean() / 127.5 - 1, abs=1e-5)  # areas are weighted, so the mean stays


def test_evaluations_meet_pixels_where_they_ask_for_latents(folder: Path) -> None:
    data = module(folder, resolution=16)
    split = data.dataset("grounding")
    assert evaluation_latents(split, 1, seed=0).shape == data.manifest.latent_shape == (1, 16, 16)
    assert torch.equal(evaluation_latents(split, 1, seed=0), torch.from_numpy(split.latent(1)))
    assert split.image(1).shape == (PIXELS, PIXELS)
    assert set(split.masks(1)) == {"Pleural Effusion", "tube"}
    assert (data.manifest.scaling_factor, data.manifest.vae["class"]) == (1.0, "PixelSpace")


def test_what_does_not_fit_is_one_sentence_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    def problems(shards: Path, **options: object) -> str:
        return " ".join(ImageShardsDataModule.preflight(shards=str(shards), **options))

    assert problems(folder) == problems(folder, resolution=PIXELS) == ""
    assert "pictures of 32 px, and 64 px are asked for" in problems(folder, resolution=64)
    write_folder(tmp_path / "latents", {"train": 3, "val": 2})
    assert "--store images" in problems(tmp_path / "latents")
    with pytest.raises(UserError, match=r"no latents.*--store both"):
        LatentShardsDataModule(str(folder)).dataset("train")
    assert "--store both" in " ".join(LatentShardsDataModule.preflight(shards=str(folder)))
    with pytest.raises(UserError, match="channels is 2"):
        module(folder, channels=2)
    with pytest.raises(UserError, match="resolution"):
        module(folder, resolution=0)
    assert "another resolution" not in problems(folder, splits_from={"grounding": str(folder)})
    assert "splits_from.grounding" in problems(folder, splits_from={"grounding": str(tmp_path / "latents")})


def test_a_damaged_picture_names_its_shard(folder: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path, {"train": 3})
    shard = tmp_path / "train-00000.tar"
    data = bytearray(shard.read_bytes())
    place = data.index(b"IDAT", data.index(b"IDAT") + 4)  # of the second picture
    data[place + 8 : place + 40] = bytes(32)
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"train-00000\.tar holds a damaged sample 't0001'"):
        first(module(tmp_path, batch_size=3), 1)


def test_streamed_pictures_are_those_of_the_folder(folder: Path) -> None:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    streamed = ImageShardsDataModule(urls, batch_size=8, seed=3, streaming=True, manifest=str(folder))
    values = items(iter(streamed.val_dataloader()))
    assert len(values) == 5
    assert same(values, items(iter(module(folder).val_dataloader())))


def test_phantoms_are_rendered_on_first_use_without_an_autoencoder(tmp_path: Path) -> None:
    options = PhantomOptions(n=6, resolution=32)
    data = PhantomPixelsDataModule(options, str(tmp_path / "made"), processes=1, resolution=16, batch_size=4, seed=0)
    said = PhantomPixelsDataModule.read_manifest(phantom=options, resolution=16)
    assert data.cohorts() == [("phantom", "public")]
    data.prepare_data()
    assert said is not None
    assert (data.manifest.vae, data.manifest.latent_shape) == (said.vae, said.latent_shape)
    split = data.dataset("train")
    image = PhantomCohort(options)[0].image.reshape(16, 2, 16, 2).mean(axis=(1, 3)) / 127.5 - 1
    assert split.latent(0)[0] == pytest.approx(image, abs=1e-5)
    assert "rendered at 32 px" in PhantomPixelsDataModule.preflight(phantom=vars(options), resolution=64)[0]
    assert PhantomPixelsDataModule.preflight(phantom=vars(options), resolution=32, channels=3) == []
    with pytest.raises(UserError, match="phantoms of other options"):
        PhantomPixelsDataModule(PhantomOptions(n=7, resolution=32), str(tmp_path / "made")).prepare_data()
