"""``lightning export``: what diffusers makes of it is what `lightning sample` draws, and it holds nothing of the cohort."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch
import yaml
from diffusers import DiffusionPipeline, SchedulerMixin
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from lightning_modules import LatentDiffusionModule
from meddiff.cli.main import dispatch
from meddiff.common.locks import locked
from meddiff.models.latent_diffusion import LatentDiffusion, model_of
from meddiff.models.sampling import Sampler, build_scheduler, initial_noise, sample_latents
from meddiff.models.sampling import SamplingOptions as Way
from meddiff.runs.open_run import open_run
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.command import call, write_fit
from tests.builders.secret_cohort import SPLITS, Cohort, make_cohort
from tests.builders.tiny import UNET, make_vae, model_config, quiet_trainer

PROMPT = "Small left edema."
STEPS, SCALE = 6, 4.0
CLASSES = {"pndm": "PNDMScheduler", "ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler"}
KINDS: dict[str, dict[str, object]] = {
    "epsilon": {},
    "v": {"prediction_type": "v_prediction", "sampling": {"sampler": "dpm++", "steps": 5, "guidance_scale": 3.0}},
    "zero": {
        "prediction_type": "v_prediction",
        "noise_schedule": {"rescale_betas_zero_snr": True},
        "sampling": {"sampler": "ddim", "steps": 5, "guidance_scale": 3.0},
    },
}


def train(folder: Path, shards: Path, vae: Path, **model: object) -> Path:
    """A fit of two steps; the run folder."""
    config = write_fit(
        folder / "fit.yaml", shards, vae, {"max_steps": 2, "limit_val_batches": 0}, checkpoint={"every_n_images": 16}
    )
    content = yaml.safe_load(config.read_text())
    given = {"freeze_text_encoder": False, "learning_rate": 1e-2, **model}
    content["model"]["init_args"] = model_config(vae, **given)
    content["seed_everything"] = 11
    config.write_text(yaml.safe_dump(content))
    assert dispatch(["fit", "-c", str(config)]) == 0
    (run,) = (folder / "runs" / "t").iterdir()
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path) -> dict[str, Path]:
    """One of each of ``KINDS``, text encoder learnable."""
    folder = tmp_path_factory.mktemp("fits")
    for kind in KINDS:
        (folder / kind).mkdir()
    return {kind: train(folder / kind, shards, vae_folder, **KINDS[kind]) for kind in KINDS}


@pytest.fixture(scope="module")
def exports(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("exports")
    for kind, run in runs.items():
        assert dispatch(["export", "--run", str(run), "--out", str(out / kind)]) == 0
    assert dispatch(["export", "--run", str(runs["epsilon"]), "--out", str(out / "ema"), "--ema"]) == 0
    return {one.name: one for one in out.iterdir()}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    from diffusers.utils.logging import disable_progress_bar, enable_progress_bar

    disable_progress_bar()
    yield
    enable_progress_bar()


@lru_cache(maxsize=8)
def loaded(folder: Path) -> tuple[DiffusionPipeline, SchedulerMixin]:
    """An export as diffusers reads it, and the scheduler that it names."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe, pipe.scheduler


def drawn(folder: Path, sampler: Sampler | None, noise: torch.Tensor, kind: str, prompt: str = PROMPT) -> torch.Tensor:
    """What diffusers makes of an export: pixels (1, H, W, 3), or latents (1, C, h, w), from ``noise``."""
    import diffusers

    pipe, own = loaded(folder)
    pipe.scheduler = own if sampler is None else getattr(diffusers, CLASSES[sampler]).from_config(own.config)
    found = pipe(
        prompt, num_inference_steps=STEPS, guidance_scale=SCALE, latents=noise.clone(), output_type=kind
    ).images
    return torch.as_tensor(found)


def opened(run: Path) -> LatentDiffusion:
    return model_of(open_run(run).module)


def our_latents(model: LatentDiffusion, noise: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    scheduler = build_scheduler(sampler, model.noise_schedule.config)
    with torch.no_grad():
        text, empty = model.encode_texts([PROMPT]), model.encode_texts([""])
    return sample_latents(model.unet, scheduler, noise, text, empty, Way(sampler, STEPS, SCALE))


def grey_levels(theirs: torch.Tensor, ours: NDArray[np.uint8]) -> int:
    """The largest difference of two images; of diffusers' in [0, 1]."""
    return int(np.abs((theirs.numpy() * 255).round().astype(int) - ours.astype(int)).max())


#: Each kind with its own sampler, and one with all of them.
DRAWN = [*(("epsilon", sampler) for sampler in CLASSES), ("v", "dpm++"), ("zero", "ddim")]
#: The rest of what goes together: a zero-SNR schedule has no PNDM.
DRAWN_TOO = [("v", "pndm"), ("v", "ddim"), ("zero", "dpm++")]


@pytest.mark.parametrize(
    ("kind", "sampler"), [*DRAWN, *(pytest.param(*case, marks=pytest.mark.slow) for case in DRAWN_TOO)]
)
def test_diffusers_draws_what_sample_draws(
    kind: str, sampler: Sampler, runs: dict[str, Path], exports: dict[str, Path], tmp_path: Path
) -> None:
    run = runs[kind]
    way = ["--sampler", sampler, "--steps", str(STEPS), "--guidance_scale", str(SCALE), "--seed", "3"]
    assert dispatch(["sample", "--ckpt", str(run), "--prompts", PROMPT, "--out", str(tmp_path / "out"), *way]) == 0
    ours = np.array(Image.open(tmp_path / "out" / "0000-000.png"))[None]
    model = opened(run)
    noise = initial_noise(3, ["0000-000"], model.latent_shape)
    assert grey_levels(drawn(exports[kind], sampler, noise, "np"), ours) <= 1
    expected = our_latents(model, noise, sampler)
    torch.testing.assert_close(drawn(exports[kind], sampler, noise, "latent"), expected, rtol=0, atol=1e-4)
    # the scheduler that the folder names is the model's own
    own = model.sampling.sampler
    if sampler != own:
        return
    torch.testing.assert_close(drawn(exports[kind], None, noise, "latent"), expected, rtol=0, atol=1e-4)
    # controls: another noise, prompt or schedule gives another image
    other = initial_noise(4, ["0000-000"], model.latent_shape)
    assert (drawn(exports[kind], sampler, other, "latent") - expected).abs().max() > 1e-2
    assert (drawn(exports[kind], sampler, noise, "latent", "Cardiomegaly") - expected).abs().max() > 1e-3
    wrong = shutil.copytree(exports[kind], tmp_path / "wrong")
    file = wrong / "scheduler" / "scheduler_config.json"
    told = {"epsilon": "v_prediction", "v_prediction": "epsilon"}[model.noise_schedule.prediction_type]
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "prediction_type": told, "rescale_betas_zero_snr": False}))
    assert (drawn(wrong, sampler, noise, "latent") - expected).abs().max() > 1e-2


def test_averaged_weights_are_others_and_are_those_of_sample(runs: dict[str, Path], exports: dict[str, Path]) -> None:
    model = opened(runs["epsilon"])
    noise = initial_noise(0, ["a"], model.latent_shape)
    raw = our_latents(model, noise, "ddim")
    with model.weights(ema=True):
        averaged = our_latents(model, noise, "ddim")
    torch.testing.assert_close(drawn(exports["ema"], "ddim", noise, "latent"), averaged, rtol=0, atol=1e-4)
    assert (raw - averaged).abs().max() > 1e-3


def test_what_we_read_back_is_bit_for_bit(runs: dict[str, Path], exports: dict[str, Path]) -> None:
    model, again = opened(runs["v"]), LatentDiffusion.build(*[str(exports["v"])] * 3, "v_prediction")
    for ours, theirs in ((model.unet, again.unet), (model.text_encoder, again.text_encoder), (model.vae, again.vae)):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert again.noise_schedule.config == model.noise_schedule.config
    zero = LatentDiffusion.build(*[str(exports["zero"])] * 3, "v_prediction")
    assert zero.noise_schedule.config == opened(runs["zero"]).noise_schedule.config
    assert zero.noise_schedule.config != again.noise_schedule.config


def test_half_rounds_and_pipelines_compute_with_it(
    runs: dict[str, Path], exports: dict[str, Path], tmp_path: Path
) -> None:
    assert dispatch(["export", "--run", str(runs["epsilon"]), "--out", str(tmp_path / "half"), "--half"]) == 0
    for part in ("unet", "vae", "text_encoder"):
        (small,), (large,) = (
            (folder / part).glob("*.safetensors") for folder in (tmp_path / "half", exports["epsilon"])
        )
        halves, wholes = load_file(small), load_file(large)
        assert {value.dtype for value in halves.values()} == {torch.float16}
        assert all(torch.equal(halves[name], value.half()) for name, value in wholes.items())
    noise = initial_noise(0, ["a"], (4, 8, 8))
    near, exact = (drawn(one, "ddim", noise, "latent") for one in (tmp_path / "half", exports["epsilon"]))
    assert near.dtype == torch.float32
    assert 0 < (near - exact).abs().max() < 0.1


def test_the_same_again_and_what_is_in_the_way(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    run, out = runs["epsilon"], tmp_path / "out"
    code, said, _ = call(capsys, "export", "--run", str(run), "--out", str(out))
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == ["vae", "text_encoder", "unet", "raw"]
    assert str(out) in said
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    code, _, _ = call(capsys, "export", "--run", str(run), "--out", str(out))
    assert code == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    for flags, said in ((["--ema"], "(ema, model)"), (["--half"], "(half)")):
        code, _, err = call(capsys, "export", "--run", str(run), "--out", str(out), *flags)
        assert code == 2
        assert f"{out} holds an export of something else {said}: choose another --out" in err
    code, _, err = call(capsys, "export", "--run", str(runs["v"]), "--out", str(out))
    assert code == 2
    assert "model" in err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    code, _, err = call(capsys, "export", "--run", str(run), "--out", str(tmp_path / "mine"))
    assert code == 2
    assert err.count("\n") == 1
    assert "holds something else than an export" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"], "nothing is left beside them"


def test_a_failed_export_leaves_what_was_there(
    runs: dict[str, Path], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, run = tmp_path / "out", runs["epsilon"]
    assert call(capsys, "export", "--run", str(run), "--out", str(out))[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr("meddiff.cli.export.data_facts", lambda *_: 1 / 0)
        for folder in (out, tmp_path / "new"):
            with pytest.raises(ZeroDivisionError):
                dispatch(["export", "--run", str(run), "--out", str(folder)])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_checkpoint_on_its_own_and_an_autoencoder_that_moved(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    (file,) = (runs["epsilon"] / "checkpoints").glob("step-*.ckpt")
    alone = Path(shutil.copy(file, tmp_path / "alone.ckpt"))
    vae = make_vae(tmp_path / "vae", seed=5)
    out = tmp_path / "out"
    assert call(capsys, "export", "--ckpt", str(alone), "--out", str(out), "--vae", str(vae))[0] == 0
    (stored,), (given,) = ((folder).glob("*.safetensors") for folder in (out / "vae", vae))
    assert all(torch.equal(load_file(stored)[name], value) for name, value in load_file(given).items())
    card = (out / "README.md").read_text()
    assert "what it was trained on is not known here" in card
    assert "not measured" in card
    code, _, err = call(
        capsys, "export", "--ckpt", str(alone), "--out", str(tmp_path / "b"), "--vae", str(tmp_path / "no")
    )
    assert code == 2
    assert "vae: no weights at" in err
    assert not (tmp_path / "b").exists()
    code, _, err = call(capsys, "export", "--out", str(tmp_path / "b"))
    assert code == 2
    assert "Give either --run RUN" in err


def test_a_model_without_an_average(vae_folder: Path, tmp_path: Path, capsys) -> None:
    module = LatentDiffusionModule(**model_config(vae_folder, ema_decay=None))  # type: ignore[arg-type]
    trainer = quiet_trainer(tmp_path, 1)
    trainer.strategy.connect(module)
    module.configure_model()
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    code, _, err = call(capsys, "export", "--ckpt", str(tmp_path / "one.ckpt"), "--out", str(tmp_path / "out"), "--ema")
    assert code == 2
    assert "keeps no EMA" in err
    assert not (tmp_path / "out").exists()


def test_what_a_killed_export_left_is_cleared(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    left = tmp_path / ".out.part" / "unet"
    left.mkdir(parents=True)
    (left / "half.safetensors").write_bytes(b"cut")
    assert call(capsys, "export", "--run", str(runs["epsilon"]), "--out", str(tmp_path / "out"))[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").rglob("half.safetensors"))
    # killed between the two renames: the earlier one is taken for what it is
    (tmp_path / "out").rename(tmp_path / ".out.old")
    code, _, err = call(capsys, "export", "--run", str(runs["v"]), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "holds an export of something else" in err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_do_not_write_at_once(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    held, done = Event(), Event()

    def hold() -> None:
        with locked(tmp_path, "lightning export", name=".out.lock"):
            held.set()
            done.wait()

    other = Thread(target=hold)
    other.start()
    held.wait()
    try:
        code, _, err = call(capsys, "export", "--run", str(runs["epsilon"]), "--out", str(tmp_path / "out"))
    finally:
        done.set()
        other.join()
    assert code == 2
    assert "is being written by" in err


# ---- the card, and what may not be in an export ----------------------------------------------------------------------


def test_the_card_says_what_it_is_and_what_was_not_measured(
    runs: dict[str, Path], exports: dict[str, Path], shards: Path
) -> None:
    card = (exports["zero"] / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "diffusers"
    assert front["pipeline_tag"] == "text-to-image"
    assert "text encoder learnable" in card
    assert "| images trained on | 16 |" in card
    assert "| seed | 11 |" in card
    assert hashlib.sha256((shards / "manifest.json").read_bytes()).hexdigest() in card
    for part in ("unet", "text_encoder", "vae"):
        (file,) = (exports["zero"] / part).glob("*.safetensors")
        assert f"| sha256, {part} | `{hashlib.sha256(file.read_bytes()).hexdigest()}` |" in card
    assert "| cohort | phantom (public) |" in card
    assert "Before you share" not in card, "a public cohort needs no warning"
    assert "| rescale_betas_zero_snr | true |" in card
    assert "| prediction_type | v_prediction |" in card
    assert "raw (not averaged)" in card
    assert "EMA (averaged" in (exports["ema"] / "README.md").read_text()
    assert "CNR, AUROC, Top-1 (pointing game) and image distances: not measured" in card
    (code,) = (part for part in card.split("```") if part.startswith("python\n"))
    assert len(code.strip().splitlines()) == 4  # the fence's own line, and three


def planted(run: Path, controls: dict[str, object] | None, tmp_path: Path) -> Path:
    """A copy of a run that was evaluated."""
    copy = Path(shutil.copytree(run, tmp_path / "runs" / "t" / "evaluated"))
    head = "step,images,grounding/cnr,grounding/auroc,grounding/top1,grounding/n,fidelity/fd_domain,fidelity/n"
    rows = ["0,0,0.1,0.5,0.1,8,90.5,8", "2,16,0.876,0.654,0.321,8,45.75,8", "4,32,9.9,0.99,0.99,8,1.0,8"]
    (copy / "tradeoff.csv").write_text("\n".join([head, *rows]) + "\n")
    if controls is not None:
        (copy / "controls.json").write_text(json.dumps(controls))
    return copy


def test_numbers_stand_above_their_controls(runs: dict[str, Path], tmp_path: Path) -> None:
    controls = {
        "grounding": {"prior": {"cnr": 1.234, "auroc": 0.777}, "random": {"cnr": 0.011}},
        "fidelity": {"fd_domain": {"real_vs_real": 3.482, "untrained": 145.1}},
    }
    run = planted(runs["epsilon"], controls, tmp_path)
    assert dispatch(["export", "--run", str(run), "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    lines = card.splitlines()
    (ours,) = (line for line in lines if line.startswith("| **these weights** | 0.876"))
    assert ours == "| **these weights** | 0.876 | 0.654 | 0.321 |"
    assert "after 16 images" in card
    assert "9.9" not in card, "of later weights"
    assert any(line.startswith("| location prior") and "1.23 | 0.777 | not measured" in line for line in lines)
    assert any(line.startswith("| real against other real images | 3.48 |") for line in lines)
    assert "Controls: not measured" not in card


def test_a_cnr_without_controls_says_so(runs: dict[str, Path], tmp_path: Path) -> None:
    run = planted(runs["epsilon"], None, tmp_path)
    assert dispatch(["export", "--run", str(run), "--out", str(tmp_path / "out"), "--ema"]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| **the raw weights after 16 images** | 0.876 |" in card
    assert "Controls: not measured. A CNR without its controls says nothing" in card
    assert "Of the averaged weights exported here nothing was measured" in card


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> tuple[Cohort, Path]:
    """A credentialed cohort, and a run over it with a gallery of its pictures and phrases."""
    folder = tmp_path_factory.mktemp("secret")
    cohort = make_cohort(folder / "cohort", vae_folder, "credentialed")
    config = write_fit(
        folder / "fit.yaml",
        cohort.shards,
        vae_folder,
        {"max_steps": 2},
        checkpoint={"every_n_images": 16},
        grounding={"every_n_images": 16, "timesteps": 1},
        gallery={"every_n_images": 16, "timesteps": 1, "shown": 4},
        tradeoff={"report": False},
    )
    assert dispatch(["fit", "-c", str(config)]) == 0
    (run,) = (folder / "runs" / "t").iterdir()
    return cohort, run


def found(folder: Path, words: list[str]) -> set[str]:
    """Which words are in the bytes or names of anything in a folder, in any case."""
    data = [path.read_bytes().lower() for path in folder.rglob("*") if path.is_file()]
    data += [str(path.relative_to(folder)).encode().lower() for path in folder.rglob("*")]
    return {word for word in words if any(word.encode().lower() in one for one in data)}


def test_an_export_holds_nothing_of_a_credentialed_cohort(secret: tuple[Cohort, Path], tmp_path: Path) -> None:
    cohort, run = secret
    out = tmp_path / "out"
    assert dispatch(["export", "--run", str(run), "--out", str(out)]) == 0
    entries = json.loads(next((run / "media" / "attention").glob("0*.json")).read_text())
    shown = {str(entry[name]) for entry in entries for name in ("phrase", "key")}
    keys = [key for split in SPLITS for key in LatentShardsDataset(cohort.shards, split).keys]
    paths = [str(cohort.shards), str(run), str(run.parent.parent), str(tmp_path), "pytest-", str(Path.home())]
    words = [*cohort.secrets, *shown, *keys, *paths]
    assert len(shown) == 8
    assert len(keys) == 24
    assert found(out, words) == set()
    assert not [path for path in out.rglob("*") if path.suffix in (".png", ".jpg", ".tar", ".csv", ".yaml")]
    assert b"\x89PNG" not in b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    card = (out / "README.md").read_text()
    assert "Before you share this:** folder is credentialed" in card
    assert "| cohort | folder (credentialed) |" in card
    assert "macro CNR" in card
    # the controls: the same search finds them in the shards, in the run, and in a card that says too much
    assert found(cohort.shards, cohort.secrets) >= {
        word for word in cohort.secrets if word.startswith("moderate edema")
    }
    assert found(run, words) >= shown
    (out / "README.md").write_text(card + cohort.secrets[2] + str(cohort.shards))
    assert found(out, words) >= {cohort.secrets[2], str(cohort.shards)}


@pytest.mark.parametrize("name", ["unet", "vae"])
def test_where_a_part_was_read_from_is_not_written(name: str, runs: dict[str, Path], tmp_path: Path) -> None:
    """Configs on disk may carry ``_name_or_path``."""
    from meddiff.models.weights.network_files import write_network

    model = opened(runs["epsilon"])
    network = getattr(model, name)
    network.register_to_config(_name_or_path="/data/hospital/p10", sample_size=UNET["sample_size"])
    assert "hospital" in network.to_json_string()
    write_network(network, tmp_path, half=False)
    assert found(tmp_path, ["hospital"]) == set()


# ---- one file ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "zero"])
def test_the_single_file_draws_the_same(
    kind: str, runs: dict[str, Path], exports: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("meddiff.models.weights.single_file")
    from diffusers import StableDiffusionPipeline

    out = tmp_path / "one"
    for flag in ("--single-file", "--single_file"):
        assert dispatch(["export", "--run", str(runs[kind]), "--out", str(out), flag]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "export.json", "model.safetensors"]
    pipe = StableDiffusionPipeline.from_single_file(
        str(out / "model.safetensors"), config=str(exports[kind]), local_files_only=True, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    model = opened(runs[kind])
    noise = initial_noise(0, ["a"], model.latent_shape)
    found = pipe(PROMPT, num_inference_steps=STEPS, guidance_scale=SCALE, latents=noise, output_type="latent").images
    expected = our_latents(model, noise, model.sampling.sampler)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    averaged = drawn(exports["ema"], None, noise, "latent")
    assert (averaged - expected).abs().max() > 1e-3, "the comparison tells weights apart"
    card = (out / "README.md").read_text()
    assert "from_single_file" in card
