"""The way back from a run: class paths, all arguments, old checkpoints, and one sentence where it does not lead back."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from datamodules import LatentShardsDataModule, PhantomLatentsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.cli.main import dispatch
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import model_of
from meddiff.phantoms import PhantomOptions
from meddiff.runs.checkpoints import Checkpoint, find_checkpoint
from meddiff.runs.open_run import open_run
from tests.builders.tiny import make_shards, model_config

SUBCLASS = '''
from lightning_modules import LatentDiffusionModule


class MyModule(LatentDiffusionModule):
    """Somebody's own."""

    def answer(self) -> int:
        return 42
'''
LATENTS = "datamodules.LatentShardsDataModule"
OURS = "lightning_modules.LatentDiffusionModule"


@pytest.fixture(scope="module")
def two_cohorts(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> tuple[Path, Path]:
    """Shards to train on, and others with a grounding split of their own."""
    folder = tmp_path_factory.mktemp("cohorts")
    sizes = {"val": 2, "grounding": 3, "fidelity": 2}
    return (
        make_shards(folder / "one", vae_folder, n=23, **sizes),
        make_shards(folder / "two", vae_folder, n=23, **{**sizes, "grounding": 5}),
    )


def fit(
    folder: Path, vae: Path, data: dict[str, object], model: str = OURS, data_path: str = LATENTS, steps: int = 2
) -> Path:
    """Train by the command; the run folder."""
    content = {
        "name": "small",
        "runs": str(folder / "runs"),
        "seed_everything": 5,
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": steps,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{"class_path": "callbacks.RunCheckpoint"}],
        },
        "model": {"class_path": model, "init_args": model_config(vae)},
        "data": {"class_path": data_path, "init_args": {"batch_size": 8, **data}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    assert dispatch(["fit", "-c", str(folder / "config.yaml")]) == 0
    return max((folder / "runs" / "small").iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path, two_cohorts: tuple[Path, Path]) -> Path:
    data = {"shards": str(two_cohorts[0]), "prompt": "label", "splits_from": {"grounding": str(two_cohorts[1])}}
    return fit(tmp_path_factory.mktemp("run"), vae_folder, data)


def content(run: Path) -> Checkpoint:
    return torch.load(find_checkpoint(run), weights_only=True)


def test_a_run_opens_to_module_data_and_facts(run: Path, two_cohorts: tuple[Path, Path]) -> None:
    opened = open_run(run)
    module, data, facts = opened
    assert type(module) is LatentDiffusionModule
    assert not module.training
    weights = content(run)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert model_of(module).ema is not None
    assert opened.images == 16
    assert (facts.run, facts.name, facts.seed) == (run, "small", 5)
    # the network before it was trained is another one
    start = model_of(opened.start()).state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in model_of(module).state_dict().items())
    assert type(data) is LatentShardsDataModule


def test_all_arguments_of_the_data_module_survive(run: Path, two_cohorts: tuple[Path, Path]) -> None:
    data = open_run(run).data
    assert isinstance(data, LatentShardsDataModule)
    assert (data.batch_size, data.prompt, data.shards) == (8, "label", str(two_cohorts[0]))
    assert len(data.dataset("grounding")) == 5, "the other folder's split"
    elsewhere = open_run(run, shards=str(two_cohorts[0])).data
    assert (len(elsewhere.dataset("grounding")), elsewhere.prompt) == (3, "label")


def test_phantom_options_survive_and_their_shards_are_made_again(tmp_path: Path, vae_folder: Path) -> None:
    phantom = {"n": 16, "resolution": 64, "seed": 9, "val": 2, "grounding": 2, "fidelity": 2}
    data = {"phantom": phantom, "vae": str(vae_folder), "shards": str(tmp_path / "shards"), "processes": 1}
    run = fit(tmp_path, vae_folder, data, data_path="datamodules.PhantomLatentsDataModule", steps=1)
    shutil.rmtree(tmp_path / "shards")
    opened = open_run(run).data
    assert isinstance(opened, PhantomLatentsDataModule)
    assert opened.phantom == PhantomOptions(**phantom)
    assert (opened.vae, opened.folder, opened.processes) == (str(vae_folder), str(tmp_path / "shards"), 1)
    assert len(opened.dataset("grounding")) == 2


def test_a_subclass_opens_as_itself(
    tmp_path: Path, vae_folder: Path, two_cohorts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebodys_module.py").write_text(SUBCLASS)
    monkeypatch.syspath_prepend(tmp_path)
    run = fit(tmp_path, vae_folder, {"shards": str(two_cohorts[0])}, model="somebodys_module.MyModule", steps=1)
    module = open_run(run).module
    assert type(module).__name__ == "MyModule"
    assert module.answer() == 42
    bare = Path(shutil.copy(find_checkpoint(run), tmp_path / "bare.ckpt"))
    assert type(open_run(None, bare).module).__name__ == "MyModule", "the checkpoint by itself says so too"
    monkeypatch.undo()
    sys.modules.pop("somebodys_module")
    with pytest.raises(UserError, match=r"No class somebodys_module\.MyModule .*: install the package") as error:
        _ = open_run(run).module
    assert "\n" not in str(error.value)


def test_a_bare_checkpoint_says_what_it_is_or_is_refused(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.ckpt"
    torch.save(content(run), bare)
    assert type(open_run(None, bare).module) is LatentDiffusionModule
    with pytest.raises(UserError, match="give --shards DIR"):
        _ = open_run(None, bare).data
    unnamed = content(run)
    del unnamed["class_path"]
    torch.save(unnamed, bare)
    with pytest.raises(UserError, match="does not say of which class it is") as error:
        _ = open_run(None, bare).module
    assert "\n" not in str(error.value)
    bare.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a checkpoint of this suite"):
        _ = open_run(None, bare).module


def test_a_checkpoint_of_before_the_model_stood_apart_opens_and_goes_on(run: Path, tmp_path: Path) -> None:
    old = tmp_path / "runs" / "small" / run.name
    shutil.copytree(run, old)
    shutil.rmtree(old / "checkpoints")
    (old / "checkpoints").mkdir()
    before = content(run)
    before["state_dict"] = {name.removeprefix("model."): value for name, value in before["state_dict"].items()}
    del before["class_path"]
    assert any(name.startswith("unet.") for name in before["state_dict"])
    torch.save(before, old / "checkpoints" / "step-00000002.ckpt")
    ours, theirs = open_run(run).module.state_dict(), open_run(old).module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert dispatch(["fit", "--resume", str(old), "--trainer.max_steps", "3"]) == 0
    after = content(old)
    assert after["global_step"] == 3
    assert all(name.startswith(("model.", "val_loss")) for name in after["state_dict"])
    assert after["class_path"] == "lightning_modules.latent_diffusion.LatentDiffusionModule"
    assert after["ema"]["updates"] == 3
    # one that lacks weights is not taken for an old one
    lacking = content(run)
    lacking["state_dict"] = dict(list(lacking["state_dict"].items())[1:])
    lacking["global_step"] = 9
    torch.save(lacking, old / "checkpoints" / "step-00000009.ckpt")
    with pytest.raises(UserError, match="does not fit"):
        _ = open_run(old).module


def test_a_name_opens_its_newest_run(run: Path, tmp_path: Path) -> None:
    for name in ("2024-01-01_00-00-00", "2025-01-01_00-00-00"):
        shutil.copytree(run, tmp_path / "small" / name)
    assert open_run(tmp_path / "small").facts.run == tmp_path / "small" / "2025-01-01_00-00-00"
    with pytest.raises(UserError, match="either --run"):
        open_run(run, find_checkpoint(run))
    with pytest.raises(UserError, match="No checkpoint at"):
        open_run(tmp_path / "none")
