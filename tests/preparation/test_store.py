"""What ``prepare --store`` puts into shards: latents as ever, pictures of every split without an autoencoder, or both."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meddiff.cli.verify import verify
from meddiff.common.errors import UserError
from meddiff.preparation.encode import shard_header
from meddiff.shards.manifest import NO_VAE, Manifest
from meddiff.shards.remake import remake_command
from tests.builders.folder_tree import make_folder
from tests.builders.prepared_folder import prepare_folder

NOWHERE = Path("no/such/autoencoder")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> dict[str, Path]:
    """Store -> its folder; that of images was made where there is no autoencoder. ``root`` holds the cohort."""
    root = tmp_path_factory.mktemp("store")
    folders = {"root": make_folder(root / "in", train=5, boxed=2)}
    grey = np.arange(80 * 72, dtype=np.uint8).reshape(72, 80)
    Image.fromarray(grey).save(root / "in" / "images" / "a000.png")
    for store in ("latents", "images", "both"):
        folders[store] = root / store
        prepare_folder(folders["root"], root / store, NOWHERE if store == "images" else vae_folder, store=store)  # type: ignore[arg-type]
    return folders


def members(folder: Path, ending: str) -> dict[str, bytes]:
    """Name -> bytes of all members that end so."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(ending) and ".mask." not in member.name:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    found[member.name] = stream.read()
    return found


def test_each_store_holds_what_it_says(prepared: dict[str, Path]) -> None:
    latents, images, both = (prepared[store] for store in ("latents", "images", "both"))
    assert len(members(latents, ".png")) == 2, "of the split grounding alone, as ever"
    assert len(members(images, ".png")) == 7
    assert members(images, ".npy") == {}
    assert members(both, ".npy") == members(latents, ".npy")
    assert members(both, ".png") == members(images, ".png")
    assert members(both, ".json") == members(images, ".json") == members(latents, ".json")
    kept = {path.name: path.read_bytes() for path in latents.glob("*.tar")}
    assert kept["grounding-00000.tar"] == (both / "grounding-00000.tar").read_bytes(), "pictures were there already"


def test_pictures_are_lossless_and_grey_ones_have_one_channel(prepared: dict[str, Path]) -> None:
    stored = {name: Image.open(io.BytesIO(data)) for name, data in members(prepared["images"], ".png").items()}
    assert {picture.size for picture in stored.values()} == {(64, 64)}
    assert {picture.format for picture in stored.values()} == {"PNG"}
    grey = [picture.mode for name, picture in stored.items() if "000" in name]
    assert grey == ["L"]


def test_manifests_say_what_there_is_and_earlier_ones_stay_as_they_were(prepared: dict[str, Path]) -> None:
    told = {
        store: json.loads((prepared[store] / "manifest.json").read_text()) for store in ("latents", "images", "both")
    }
    assert [told[store]["schema_version"] for store in told] == [1, 2, 2]
    assert "pictures" not in told["latents"]
    assert told["images"]["latent"] == "none"
    assert told["images"]["vae"] == NO_VAE
    assert told["both"]["vae"] == told["latents"]["vae"]
    for store in told:
        again = json.loads(json.dumps(Manifest.read(prepared[store]).to_json()))
        assert again == told[store]
    pretended = told["images"] | {"schema_version": 1}
    with pytest.raises(UserError, match="damaged"):
        Manifest.parse(json.dumps(pretended), "manifest.json")
    with pytest.raises(UserError, match="pictures is 'some'"):
        Manifest.parse(json.dumps(told["images"] | {"pictures": "some", "schema_version": 1}), "manifest.json")


def test_a_folder_is_not_continued_with_another_store(prepared: dict[str, Path], vae_folder: Path) -> None:
    again = prepare_folder(prepared["root"], prepared["images"], NOWHERE, store="images")
    assert again == Manifest.read(prepared["images"])
    with pytest.raises(UserError, match=r"already holds shards with another .*pictures"):
        prepare_folder(prepared["root"], prepared["latents"], vae_folder, store="both")


def test_verify_finds_a_changed_picture(prepared: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    verify([prepared["images"]])
    shard = prepared["images"] / "val-00000.tar"
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:2000] + b"x" + whole[2001:])
        with pytest.raises(UserError, match=r"val-00000\.tar"):
            verify([prepared["images"]])
    finally:
        shard.write_bytes(whole)
    assert "ok" in capsys.readouterr().out


def test_made_again_for_a_model_of_latents_the_pictures_are_kept(prepared: dict[str, Path]) -> None:
    manifest = Manifest.read(prepared["images"])
    command = "lightning prepare folder --root in --store images --out here"
    again = remake_command(Manifest(**{**vars(manifest), "command": command}), "there", "vae", 64)
    assert again == "lightning prepare folder --root in --store both --vae vae --resolution 64 --out there"


def test_pictures_may_have_any_size() -> None:
    header = shard_header("folder", "", {}, str(NOWHERE), 50, "none", store="images")
    assert (header.resolution, header.pictures, header.latent) == (50, "all", "none")
    with pytest.raises(UserError, match="1 or more pixels"):
        shard_header("folder", "", {}, str(NOWHERE), 0, "none", store="images")
