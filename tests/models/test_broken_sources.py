"""Files that are no Stable Diffusion 1 or 2, or half of one: refused in one sentence, before a number is used."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from meddiff.common.errors import UserError
from meddiff.models.backbones import build_unet, load_vae, misfit
from meddiff.models.weights.sources import Part, Source
from meddiff.models.weights.stored import stored_part
from tests.builders.command import call, write_fit
from tests.builders.original_files import State, original_parts, original_state, write_original
from tests.builders.weight_files import make_model, rewrite, weights_of


class Planted:
    """Unpickled, it makes a folder: that it is not there shows that nothing ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.folder,)


def cut(file: Path) -> Path:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    return file


def saved(file: Path, state: State) -> Path:
    """The tensors as safetensors or as a pickle."""
    plain = {name: value.contiguous().clone() for name, value in state.items()}
    if file.suffix == ".safetensors":
        save_file(plain, file)
    else:
        torch.save(plain, file)
    return file


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def zeros(*names: str) -> State:
    return {name: torch.zeros(4, 4) for name in names}


def folder_without(folder: Path, gone: str) -> Path:
    """A pipeline with ``unet/`` and ``text_encoder/``, one thing of it missing."""
    make_model(folder)
    target = folder / gone
    if target.is_dir():
        for one in target.iterdir():
            one.unlink()
        target.rmdir()
    else:
        target.unlink()
    return folder


def contradicting(folder: Path, **changed: object) -> Path:
    """A U-Net's folder whose config says something else than its tensors."""
    make_model(folder)
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    return folder


def half_of(state: State) -> State:
    """Every second tensor."""
    return {name: state[name] for name in list(state)[::2]}


def quantised(state: State) -> State:
    """As 8-bit quantisation leaves matrices: whole numbers beside their scales."""
    found: State = {}
    for name, value in state.items():
        wide = value.ndim >= 2 and name.startswith("model.diffusion_model.")
        found |= {name: (value * 100).to(torch.int8), f"{name}_scale": value.amax()} if wide else {name: value}
    return found


def lora(folder: Path) -> Path:
    place = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    return saved(
        folder / "lora.safetensors", zeros(f"{place}.lora_down.weight", f"{place}.lora_up.weight", f"{place}.alpha")
    )


def inversion(folder: Path) -> Path:
    content = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(1, 768)}, "name": "x", "step": 5}
    torch.save(content, folder / "inversion.pt")
    return folder / "inversion.pt"


def sdxl(folder: Path) -> Path:
    towers = ("0.transformer.text_model.embeddings.token_embedding.weight", "1.model.token_embedding.weight")
    names = zeros(*(f"conditioner.embedders.{one}" for one in towers), "model.diffusion_model.label_emb.0.0.weight")
    return saved(folder / "xl.safetensors", original_state(2) | names)


def controlnet(folder: Path) -> Path:
    unet = original_parts(1)["unet"]
    state = {f"control_model.{name}": value for name, value in unet.items() if not name.startswith("out")}
    return saved(folder / "control.ckpt", state | zeros("control_model.input_hint_block.0.weight"))


def planted(folder: Path) -> Path:
    torch.save({"state_dict": original_state(1), "callbacks": Planted(folder / "planted")}, folder / "code.ckpt")
    return folder / "code.ckpt"


def resnet(folder: Path) -> Path:
    from torchvision.models import resnet18

    return saved(folder / "resnet.safetensors", dict(resnet18().state_dict()))


def without(*beginnings: str) -> Callable[[Path], Path]:
    """A file of version 1 without some of its tensors."""

    def make(folder: Path) -> Path:
        state = {name: value for name, value in original_state(1).items() if not name.startswith(beginnings)}
        return saved(folder / "part.safetensors", state)

    return make


def added(**tensors: torch.Tensor) -> Callable[[Path], Path]:
    """A file of version 2 with further tensors in its U-Net."""

    def make(folder: Path) -> Path:
        odd = {f"model.diffusion_model.{name}": value for name, value in tensors.items()}
        return saved(folder / "more.ckpt", original_state(2) | odd)

    return make


def broken_metadata(folder: Path) -> Path:
    save_file(dict(original_state(1)), folder / "told.safetensors", {"meddiff": "{"})
    return folder / "told.safetensors"


def one_nan(folder: Path) -> Path:
    state = original_state(1)
    state["model.diffusion_model.out.2.bias"][0] = torch.nan
    return saved(folder / "nan.ckpt", state)


#: Name -> (part, how to make it, what the sentence says).
BROKEN: dict[str, tuple[Part, Callable[[Path], Source | Path], str]] = {
    "truncated safetensors": (
        "unet",
        lambda at: cut(write_original(at / "sd.safetensors", 1)),
        r"sd\.safetensors is damaged",
    ),
    "truncated ckpt": ("unet", lambda at: cut(write_original(at / "sd.ckpt", 1)), r"sd\.ckpt is damaged"),
    "pickle with code": ("unet", planted, r"code\.ckpt holds Python objects .* would run their code"),
    "a LoRA": ("unet", lora, r"is a LoRA, .* fuse it .*\(2 of its 3 names: lora_unet_down_blocks_0"),
    "a textual inversion": ("text_encoder", inversion, "is a textual inversion, .*string_to_token"),
    "an inversion as diffusers writes it": (
        "unet",
        lambda at: saved(at / "x.safetensors", {"<cxr>": torch.zeros(1, 768)}),
        "holds no U-Net .* among its 1 tensors: <cxr>",
    ),
    "SDXL": ("unet", sdxl, r"is Stable Diffusion XL .*conditioner\.embedders\.0"),
    "SD 3": (
        "unet",
        lambda at: saved(
            at / "x.safetensors", zeros("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight")
        ),
        "is Stable Diffusion 3, Flux or their kin, which have no U-Net",
    ),
    "Flux": (
        "unet",
        lambda at: saved(at / "x.safetensors", zeros("double_blocks.0.img_attn.qkv.weight", "img_in.weight")),
        "is Stable Diffusion 3, Flux or their kin",
    ),
    "a ControlNet": ("unet", controlnet, "is a ControlNet, which steers another model"),
    "a VAE for a U-Net": (
        "unet",
        lambda at: saved(at / "vae.safetensors", original_parts(1)["vae"]),
        "holds no U-Net but an autoencoder",
    ),
    "a text tower for a U-Net": (
        "unet",
        without("model.diffusion_model.", "first_stage_model."),
        "holds no U-Net but a text tower",
    ),
    "a U-Net for a VAE": ("vae", without("first_stage_model."), "holds no autoencoder but a U-Net and a text tower"),
    "a folder without its text tower": (
        "text_encoder",
        lambda at: folder_without(at / "model", "text_encoder"),
        r"holds no text_encoder \(neither text_encoder/config\.json",
    ),
    "a folder without its weights": (
        "unet",
        lambda at: folder_without(at / "model", "unet/diffusion_pytorch_model.safetensors"),
        r"has a config\.json but no diffusion_pytorch_model\.safetensors",
    ),
    "a config of wider layers": (
        "unet",
        lambda at: contradicting(at / "model", block_out_channels=[8, 32]),
        r"does not fit: .*\d+ have another shape .* instead of",
    ),
    "a config of more layers": (
        "unet",
        lambda at: contradicting(at / "model", layers_per_block=2),
        r"does not fit: \d+ of \d+ tensors are missing",
    ),
    "a config of another class": (
        "unet",
        lambda at: contradicting(at / "model", _class_name="FluxTransformer2DModel"),
        "is of a FluxTransformer2DModel",
    ),
    "half the tensors": (
        "unet",
        lambda at: saved(at / "half.safetensors", half_of(original_state(1))),
        "is not whole: .* is missing",
    ),
    "half the tensors of a VAE": (
        "vae",
        lambda at: saved(at / "half.ckpt", half_of(original_state(2))),
        r"(is not whole: .* is missing|does not fit: \d+ of \d+ tensors are missing)",
    ),
    "without its last blocks": (
        "unet",
        without("model.diffusion_model.output_blocks.3", "model.diffusion_model.out.0"),
        r"does not fit: \d+ of \d+ tensors are missing \(up_blocks\.1\.attentions\.1",
    ),
    "without its first levels": (
        "unet",
        without("model.diffusion_model.input_blocks.1.", "model.diffusion_model.input_blocks.2."),
        "is not whole: .* input_blocks|is not whole: its levels have",
    ),
    "a layer of another network": (
        "unet",
        added(**{"motion.0.weight": torch.zeros(1), "motion.1.weight": torch.zeros(1)}),
        r"2 are of no use in it \(motion\.0\.weight, motion\.1\.weight\)",
    ),
    "averages that are not there": (
        "unet",
        lambda at: {"checkpoint": str(write_original(at / "sd.ckpt", 1)), "ema": True},
        r"has no averages \(ema\): \d+ of \d+ tensors are missing \(model_ema\.diffusion_model",
    ),
    "averages of a VAE": (
        "vae",
        lambda at: {"checkpoint": str(write_original(at / "sd.ckpt", 1, ema=True)), "ema": True},
        "are kept of the U-Net alone",
    ),
    "averages of a folder": (
        "unet",
        lambda at: {"checkpoint": str(make_model(at / "model")), "ema": True},
        "is a folder, which holds no averages",
    ),
    "a git-lfs pointer": (
        "unet",
        lambda at: written(at / "sd.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
        "is a Git LFS pointer, not weights: git lfs pull",
    ),
    "an empty file": ("vae", lambda at: written(at / "sd.safetensors", b""), "is empty, no weights"),
    "a web page": ("vae", lambda at: written(at / "sd.ckpt", b"<!doctype html><p>404"), "is a web page"),
    "a file that is not there": ("unet", lambda at: at / "sd.ckpt", "no file at .*sd.ckpt"),
    "a file of another kind": (
        "unet",
        lambda at: written(at / "notes.txt", b"weights"),
        r"is no \.safetensors, \.ckpt file",
    ),
    "a whole other network": (
        "unet",
        resnet,
        r"holds no U-Net of Stable Diffusion .* among its 122 tensors: bn1\.bias",
    ),
    "8-bit weights": (
        "unet",
        lambda at: saved(at / "int8.safetensors", quantised(original_state(1))),
        r"(are of no use in it .*_scale|have another type .*int8 instead of float32)",
    ),
    "float8 weights": (
        "unet",
        lambda at: saved(
            at / "f8.safetensors",
            {name: value.to(torch.float8_e4m3fn) for name, value in original_parts(1)["unet"].items()},
        ),
        r"\d+ have another type .*float8_e4m3fn instead of float32",
    ),
    "a number that is none": ("unet", one_nan, r"not finite in 1 of \d+ tensors \(conv_out\.bias\)"),
    "metadata that are damaged": ("unet", broken_metadata, "metadata say under 'meddiff' is damaged"),
    "a checkpoint that is no path": ("unet", lambda at: {"checkpoint": 3}, "checkpoint is 3 .* must be a folder"),
    "a run's own checkpoint": (
        "unet",
        lambda at: saved(at / "last.ckpt", zeros("model.unet.conv_in.weight")),
        "is a checkpoint of a run of this suite",
    ),
}


def use(source: Source, part: Part) -> None:
    """All that reading the part takes."""
    if part == "unet":
        build_unet(source)
    elif part == "vae":
        load_vae(source)
    else:
        stored_part(source, part).read(False)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_source_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    part, make, said = BROKEN[name]
    made = make(tmp_path)
    source = made if isinstance(made, dict) else str(made)
    with pytest.raises(UserError, match=said) as refused:
        use(source, part)
    assert "\n" not in str(refused.value)
    assert part in str(refused.value) or str(tmp_path) in str(refused.value)
    assert not (tmp_path / "planted").exists()
    if part != "text_encoder" and name != "a number that is none":  # values are read later
        assert misfit(source, part) is not None


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_whole_is_not_refused(tmp_path: Path, version: int) -> None:
    """The control: the same files without the fault."""
    for file in (tmp_path / "sd.ckpt", tmp_path / "sd.safetensors"):
        write_original(file, version)
        assert misfit(str(file), "unet") is misfit(str(file), "vae") is None
        for part in ("unet", "vae", "text_encoder"):
            use(str(file), part)  # type: ignore[arg-type]
    torch.load(planted(tmp_path), weights_only=False)  # and what was planted is code
    assert (tmp_path / "planted").is_dir()


#: What the command is tried with: a file alone takes a second.
AT_THE_COMMAND = (
    "truncated ckpt",
    "pickle with code",
    "a LoRA",
    "SDXL",
    "a VAE for a U-Net",
    "half the tensors of a VAE",
    "averages that are not there",
    "a file that is not there",
)


def test_the_command_refuses_it_before_a_run_begins(
    shards: Path, vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    config = str(write_fit(tmp_path / "fit.yaml", shards, vae_folder))
    for number, name in enumerate(AT_THE_COMMAND):
        part, make, said = BROKEN[name]
        folder = tmp_path / str(number)
        folder.mkdir()
        made = make(folder)
        source = json.dumps(made) if isinstance(made, dict) else str(made)
        code, _, err = call(capsys, "fit", "-c", config, f"--model.{part}", source)
        assert code == 2, name
        assert re.search(said, err), (name, err)
        assert "Traceback" not in err
        assert not (folder / "planted").exists()
    assert not (tmp_path / "runs").exists()


def test_an_inpainting_unet_does_not_go_with_four_channels_of_latents(
    shards: Path, vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_fit(tmp_path / "fit.yaml", shards, vae_folder))
    for inside in (9, 4):
        folder = tmp_path / str(inside)
        folder.mkdir()
        file = write_original(folder / "sd.ckpt", 1, inside=inside)
        told = json.dumps({"checkpoint": str(file), "sample_size": 8})
        text = json.dumps({"width": 64, "heads": 1, "layers": 1})
        more = ("--trainer.max_steps", "1", "--model.text_encoder", text)
        code, _, err = call(capsys, "fit", "-c", config, "--model.unet", told, *more)
        if inside == 9:
            assert code == 2
            assert "were made with latent shape (4, 8, 8) but the model has (9, 8, 8)" in err
            assert not (tmp_path / "runs").exists()
        else:  # the control trains
            assert code == 0, err


def test_old_names_and_one_tensor_too_few(tmp_path: Path) -> None:
    """Names that are changed on the way are named as the network has them."""
    folder = tmp_path / "vae"
    load_vae(str(write_original(tmp_path / "sd.ckpt", 1))).save_pretrained(folder)
    rewrite(
        weights_of(folder),
        lambda state: {
            name.replace("to_q", "query"): value for name, value in state.items() if "to_k.bias" not in name
        },
    )
    with pytest.raises(
        UserError, match=r"2 of \d+ tensors are missing \(encoder\.mid_block\.attentions\.0\.to_k\.bias, dec"
    ):
        load_vae(str(folder))
    assert any("query" in name for name in load_file(weights_of(folder)))
