"""Single files of Stable Diffusion 1 and 2: in, out, and the same as diffusers' own converter makes of them."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file, save_file

from meddiff.common.errors import UserError
from meddiff.models.backbones import build_unet, load_vae, misfit, vae_identity
from meddiff.models.weights.digests import fingerprint
from meddiff.models.weights.original_unet import tell_unet
from meddiff.models.weights.original_vae import tell_vae
from meddiff.models.weights.reading import read_state
from meddiff.models.weights.single_file import to_original, write_single_file
from meddiff.models.weights.stored import stored_part
from tests.builders.original_files import (
    VOCABULARY,
    State,
    open_clip_tower,
    original_parts,
    original_state,
    unet,
    vae,
    write_original,
)

VERSIONS = (1, 2)
LAYOUTS = {1: "sd1", 2: "sd2"}
OPTIONS = {
    "plain": {},
    "all levels attend, two blocks, inpainting": {"attends": (True, True), "depth": 2, "inside": 9},
    "three levels, two layers": {"widths": (32, 32, 64), "attends": (True, False, True), "layers": 2},
}


def same(one: State, other: State) -> bool:
    """Names, types and every bit."""
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and torch.equal(value, other[name]) for name, value in one.items()
    )


def parts_of(source: str, ema: bool = False) -> dict[str, tuple[dict[str, object], State]]:
    """Config and state of the three parts of a source."""
    told = {"unet": {"checkpoint": source, "ema": ema}, "vae": source, "text_encoder": source}
    found = {part: stored_part(one, part) for part, one in told.items()}  # type: ignore[arg-type]
    return {part: (one.config, one.read(False)) for part, one in found.items()}


def parts_of_text(source: str) -> tuple[dict[str, object], State]:
    """Config and state of a text tower."""
    found = stored_part(source, "text_encoder")
    return found.config, found.read(False)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_unet_is_what_diffusers_own_converter_makes_of_the_file(tmp_path: Path, version: int, options: str) -> None:
    file = write_original(tmp_path / "sd.ckpt", version, ema=True, **OPTIONS[options])
    found = build_unet(str(file))
    checkpoint = original_state(version, ema=True, **OPTIONS[options])
    theirs = convert_ldm_unet_checkpoint(dict(checkpoint), dict(found.config))
    assert same(found.state_dict(), theirs)
    averaged = build_unet({"checkpoint": str(file), "ema": True})
    theirs_averaged = convert_ldm_unet_checkpoint(dict(checkpoint), dict(found.config), extract_ema=True)
    assert same(averaged.state_dict(), theirs_averaged)
    # the control: raw weights and averages are not the same thing
    assert not same(averaged.state_dict(), found.state_dict())


@pytest.mark.parametrize("version", VERSIONS)
def test_vae_and_text_tower_are_what_diffusers_own_converters_make_of_the_file(tmp_path: Path, version: int) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    file = str(write_original(tmp_path / "sd.safetensors", version))
    checkpoint = original_state(version)
    vae_found = load_vae(file)
    assert same(vae_found.state_dict(), convert_ldm_vae_checkpoint(dict(checkpoint), dict(vae_found.config)))
    config, state = parts_of(file)["text_encoder"]
    if version == 1:
        theirs = convert_ldm_clip_checkpoint(dict(checkpoint))
        theirs.pop("text_model.embeddings.position_ids")
    else:
        model = CLIPTextModel(CLIPTextConfig(**config))
        theirs = convert_open_clip_checkpoint(model, dict(checkpoint))
        # diffusers knows the last block of ViT-H by its number alone; this tower's is the third
        theirs = {name: value for name, value in theirs.items() if ".layers.2." not in name}
        theirs.pop("text_projection.weight", None)
    assert same(state, theirs)
    tower = CLIPTextModel(CLIPTextConfig(**config))
    bare = any(name.startswith("embeddings.") for name in tower.state_dict())
    tower.load_state_dict({name.removeprefix("text_model.") if bare else name: value for name, value in state.items()})


def test_the_open_clip_tower_gives_what_open_clip_gives_before_its_last_block(tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    whole, parts = open_clip_tower(), original_parts(2)
    whole.load_state_dict({name: value for name, value in parts["text_encoder"].items() if name != "logit_scale"})
    tokens = torch.randint(0, VOCABULARY, (2, 77), generator=torch.Generator().manual_seed(0))

    def states(blocks: int) -> torch.Tensor:
        """(2, 77, 64) behind so many blocks and the last norm."""
        found = whole.token_embedding(tokens) + whole.positional_embedding
        for block in whole.transformer.resblocks[:blocks]:
            found = block(found, attn_mask=whole.attn_mask)
        return whole.ln_final(found)

    def ours(state: State) -> torch.Tensor:
        whole_names = {f"cond_stage_model.model.{name}": value for name, value in state.items()}
        save_file(whole_names, tmp_path / "text.safetensors")
        config, values = parts_of_text(str(tmp_path / "text.safetensors"))
        tower = CLIPTextModel(CLIPTextConfig(**config)).eval()
        bare = any(name.startswith("embeddings.") for name in tower.state_dict())
        tower.load_state_dict({name.removeprefix("text_model.") if bare else name: one for name, one in values.items()})
        return tower(tokens).last_hidden_state

    with torch.no_grad():
        whole.eval()
        torch.testing.assert_close(ours(parts["text_encoder"]), states(2), rtol=1e-4, atol=1e-5)
        # without what stands behind a whole tower, all blocks run
        cut = {name: value for name, value in parts["text_encoder"].items() if name != "text_projection"}
        torch.testing.assert_close(ours(cut), states(3), rtol=1e-4, atol=1e-5)
        assert (states(2) - states(3)).abs().max() > 1e-2  # the control


@pytest.mark.parametrize("version", VERSIONS)
def test_diffusers_reads_the_file_itself_with_a_local_config(tmp_path: Path, version: int) -> None:
    file = write_original(tmp_path / "sd.safetensors", version)
    unet_found, vae_found = build_unet(str(file)), load_vae(str(file))
    for kind, found in ((UNet2DConditionModel, unet_found), (AutoencoderKL, vae_found)):
        found.save_config(tmp_path / kind.__name__)
        theirs = kind.from_single_file(str(file), config=str(tmp_path / kind.__name__), local_files_only=True)
        assert same(found.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_round_trip_through_both_exports_keeps_every_bit(tmp_path: Path, version: int, ema: bool) -> None:
    """Original .ckpt -> ours -> single file and folders -> diffusers -> ours."""
    first = parts_of(str(write_original(tmp_path / "sd.ckpt", version, ema=True)), ema)
    write_single_file(tmp_path / "out.safetensors", first, LAYOUTS[version], half=False)  # type: ignore[arg-type]
    again = parts_of(str(tmp_path / "out.safetensors"))
    for part, (config, state) in first.items():
        assert again[part][0] == config
        assert same(again[part][1], state)
    # the names and numbers that went in come out, but for what no part is and what does not run
    stored, put = load_file(tmp_path / "out.safetensors"), original_state(version, ema=True)
    raw = {name: put[name] for name in stored if not (ema and name.startswith("model.diffusion_model."))}
    assert same({name: stored[name] for name in raw}, raw)
    if ema:
        shadows = {
            name: put[f"model_ema.{name.removeprefix('model.').replace('.', '')}"] for name in stored if name not in raw
        }
        assert same({name: stored[name] for name in shadows}, shadows)
    left_out = ("model_ema.", "betas", "alphas_", "logvar")
    last = ("resblocks.2.", "text_projection", "logit_scale", "position_ids")
    expected = {name for name in put if not name.startswith(left_out) and not any(one in name for one in last)}
    assert stored.keys() == expected
    out = str(tmp_path / "out.safetensors")
    unet_found = build_unet({"checkpoint": str(tmp_path / "sd.ckpt"), "ema": ema})
    unet_found.save_config(tmp_path / "config")
    theirs = UNet2DConditionModel.from_single_file(out, config=str(tmp_path / "config"), local_files_only=True)
    assert same(theirs.state_dict(), first["unet"][1])
    if version == 1:
        text = convert_ldm_clip_checkpoint(dict(stored))
    else:
        from transformers import CLIPTextConfig, CLIPTextModel

        tower = CLIPTextModel(CLIPTextConfig(**first["text_encoder"][0]))
        text = convert_open_clip_checkpoint(tower, dict(stored))
    assert same(text, first["text_encoder"][1])
    unet_found.save_pretrained(tmp_path / "pipe" / "unet")
    load_vae(str(tmp_path / "sd.ckpt")).save_pretrained(tmp_path / "pipe" / "vae")
    for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        theirs = kind.from_pretrained(tmp_path / "pipe" / part)
        assert same(theirs.state_dict(), first[part][1])
        assert same(stored_part(str(tmp_path / "pipe"), part).read(False), first[part][1])  # type: ignore[arg-type]


def test_the_published_networks_are_told_from_their_tensors() -> None:
    """Sizes and configs as Stability and Runway publish them, on the device that holds no numbers."""
    wide: dict[str, object] = {"widths": (320, 640, 1280, 1280), "attends": (True, True, True, False), "layers": 2}
    with torch.device("meta"):
        first = unet(False, 768, **wide).state_dict()  # type: ignore[arg-type]
        second = unet(True, 1024, **wide).state_dict()  # type: ignore[arg-type]
        coder = vae((128, 256, 512, 512), layers=2).state_dict()
    assert (len(first), sum(value.numel() for value in first.values())) == (686, 859_520_964)
    assert (len(second), sum(value.numel() for value in second.values())) == (686, 865_910_724)
    assert (len(coder), sum(value.numel() for value in coder.values())) == (248, 83_653_863)
    common = {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    }
    for state, own in (
        (first, {"cross_attention_dim": 768, "attention_head_dim": 8, "use_linear_projection": False}),
        (second, {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}),
    ):
        told = tell_unet(state, "FILE")
        assert {name: told[name] for name in common | own} == common | own
    told = tell_vae(coder, "FILE")
    assert (told["block_out_channels"], told["layers_per_block"], told["latent_channels"], told["scaling_factor"]) == (
        [128, 256, 512, 512],
        2,
        4,
        0.18215,
    )


def test_what_a_file_cannot_say_is_told_beside_it_or_stands_in_its_metadata(tmp_path: Path) -> None:
    file = str(write_original(tmp_path / "sd.safetensors", 1))
    told = build_unet({"checkpoint": file, "attention_head_dim": 2, "norm_num_groups": 16, "sample_size": 96})
    config = told.config
    assert (config.attention_head_dim, config.norm_num_groups, config.sample_size) == (2, 16, 96)
    assert build_unet(file).config.attention_head_dim == 8
    assert vae_identity({"checkpoint": file, "scaling_factor": 0.13025})["scaling_factor"] == 0.13025
    # written by this suite, a file says it itself
    write_single_file(tmp_path / "own.safetensors", {"unet": (dict(config), told.state_dict())}, "sd1", half=True)
    own = build_unet(str(tmp_path / "own.safetensors"))
    assert (own.config.attention_head_dim, own.config.norm_num_groups, own.config.sample_size) == (2, 16, 96)
    assert all(value.dtype == torch.float16 for value in load_file(tmp_path / "own.safetensors").values())
    assert own.dtype == torch.float32
    with pytest.raises(UserError, match="in_channels cannot be told beside a checkpoint"):
        build_unet({"checkpoint": file, "in_channels": 9})
    odd: dict[str, object] = {"attention_head_dim": 0, "norm_num_groups": 0, "encoder_hid_dim": -1}
    for name, value in odd.items():
        with pytest.raises(UserError, match="unet: diffusers does not accept this config"):
            build_unet({"checkpoint": file, name: value})


def test_a_hub_source_may_name_a_file_and_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of the hub's cache on this machine, which is what it looks into first; nothing is fetched."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    place = tmp_path / "models--org--sd"
    found = {}
    for number, revision in enumerate(("main", "older")):
        commit = str(number) * 40
        folder = place / "snapshots" / commit
        (folder / "sub").mkdir(parents=True)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / revision).write_text(commit)
        write_original(folder / "sub" / "sd.safetensors", 1, seed=number)
        found[revision] = build_unet(str(folder / "sub" / "sd.safetensors"))
        found[revision].save_pretrained(folder / "unet")
    for ending, revision in (("", "main"), ("@main", "main"), ("@older", "older")):
        for name in ("hub:org/sd", "hub:org/sd/sub/sd.safetensors"):
            assert same(build_unet(f"{name}{ending}").state_dict(), found[revision].state_dict())
    assert not same(found["main"].state_dict(), found["older"].state_dict())
    assert (
        misfit("hub:org/other", "unet") is misfit({"checkpoint": "hub:org/other"}, "unet") is None
    )  # not before it starts
    with pytest.raises(UserError, match=r"the hub has no usable 'org/sd/none\.ckpt@older'"):
        build_unet({"checkpoint": "hub:org/sd/none.ckpt@older", "sample_size": 8})


def test_a_projection_for_text_of_another_width_is_drawn_and_the_rest_comes_from_the_file(tmp_path: Path) -> None:
    file = str(write_original(tmp_path / "sd.safetensors", 2))
    source: dict[str, object] = {"checkpoint": file, "encoder_hid_dim": 24}
    assert misfit(source, "unet") is None
    torch.manual_seed(3)
    wide = build_unet(source)
    torch.manual_seed(3)
    again = build_unet(source)
    plain = build_unet(file).state_dict()
    assert (wide.config.encoder_hid_dim, wide.config.encoder_hid_dim_type) == (24, "text_proj")
    drawn = {name: value for name, value in wide.state_dict().items() if name.startswith("encoder_hid_proj.")}
    assert {name: tuple(value.shape) for name, value in drawn.items()} == {
        "encoder_hid_proj.weight": (64, 24),
        "encoder_hid_proj.bias": (64,),
    }
    assert same(again.state_dict(), wide.state_dict())
    assert drawn["encoder_hid_proj.weight"].std() > 0
    assert same({name: value for name, value in wide.state_dict().items() if name not in drawn}, plain)
    states = torch.zeros(1, 5, 24)
    assert wide(torch.zeros(1, 4, 8, 8), 1, encoder_hidden_states=states).sample.isfinite().all()
    # it travels in a single file, and then is no longer drawn
    write_single_file(tmp_path / "out.safetensors", {"unet": (dict(wide.config), wide.state_dict())}, "sd2", half=False)
    assert same(build_unet(str(tmp_path / "out.safetensors")).state_dict(), wide.state_dict())
    without = dict(load_file(tmp_path / "out.safetensors"))
    save_file(
        {name: value for name, value in without.items() if "encoder_hid_proj" not in name}, tmp_path / "cut.safetensors"
    )
    config = {**wide.config, "_class_name": "UNet2DConditionModel"}
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(plain, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"2 of \d+ tensors are missing \(encoder_hid_proj"):
        build_unet(str(folder))  # the control: a config that promises it needs it


def test_a_vae_is_the_same_in_every_format(tmp_path: Path) -> None:
    state = original_parts(1)["vae"]
    save_file(state, tmp_path / "bare.safetensors")
    torch.save({"state_dict": state | {"loss.logvar": torch.zeros(1)}}, tmp_path / "bare.ckpt")
    whole = write_original(tmp_path / "sd.ckpt", 1, seed=0)
    load_vae(str(whole)).save_pretrained(tmp_path / "new")
    load_vae(str(whole)).save_pretrained(tmp_path / "old")
    (file,) = (tmp_path / "old").glob("*.safetensors")
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    names = {name: name for name in load_file(file)}
    for new, old in older.items():
        names = {name: place.replace(f".{new}.", f".{old}.") for name, place in names.items()}
    save_file({names[name]: value.clone() for name, value in load_file(file).items()}, file)
    write_single_file(tmp_path / "own.safetensors", {"vae": parts_of(str(whole))["vae"]}, "sd1", half=False)
    places = [tmp_path / name for name in ("bare.safetensors", "bare.ckpt", "sd.ckpt", "new", "old", "own.safetensors")]
    digests = {place.name: vae_identity(str(place))["sha256"] for place in places}
    assert len({json.dumps(one) for one in digests.values()}) == 1, digests
    assert digests["new"] == fingerprint(tmp_path / "new")  # as shards of before have it
    # shards made before hold the digest of the old names
    before = fingerprint(tmp_path / "old")
    assert before != digests["old"]
    assert vae_identity(str(tmp_path / "old"), before)["sha256"] == before
    assert vae_identity(str(tmp_path / "new"), before)["sha256"] == digests["new"]
    # the control: one other number is another autoencoder
    other = {name: value.clone() for name, value in state.items()}
    other["quant_conv.bias"][0] += 1e-3
    save_file(other, tmp_path / "other.safetensors")
    assert vae_identity(str(tmp_path / "other.safetensors"), before)["sha256"] not in (before, digests["new"])


@pytest.mark.parametrize("name", ["shift_factor", "latents_mean"])
def test_a_vae_that_shifts_its_latents_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "vae"
    load_vae(str(write_original(tmp_path / "sd.ckpt", 1))).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for harmless in (None, 0.0) if name == "shift_factor" else (None,):
        (folder / "config.json").write_text(json.dumps({**config, name: harmless}))
        load_vae(str(folder))
    (folder / "config.json").write_text(json.dumps({**config, name: 0.1159 if name == "shift_factor" else [0.1] * 4}))
    for refusal in (load_vae, vae_identity):
        with pytest.raises(UserError, match=f"has a {name} of .* latents are only scaled"):
            refusal(str(folder))
    assert name in str(misfit(str(folder), "vae"))


def test_a_training_keeps_its_own_scale_factor(tmp_path: Path) -> None:
    torch.save({"state_dict": original_state(1) | {"scale_factor": torch.tensor(0.25)}}, tmp_path / "sd.ckpt")
    assert vae_identity(str(tmp_path / "sd.ckpt"))["scaling_factor"] == 0.25


def test_tensors_of_no_part_are_counted_and_named(tmp_path: Path) -> None:
    odd = {f"safety.layer.{k}": torch.zeros(1) for k in range(4)}
    torch.save(original_state(1) | odd, tmp_path / "odd.ckpt")
    with pytest.warns(
        UserWarning, match=r"4 of \d+ tensors belong to no part .*safety\.layer\.0, .*safety\.layer\.2, \.\.\."
    ):
        build_unet(str(tmp_path / "odd.ckpt"))
    torch.save(original_state(1, ema=True), tmp_path / "plain.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_unet(str(tmp_path / "plain.ckpt"))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_names_of_a_pytorch_folder_and_half_precision_files_are_read(tmp_path: Path, version: int) -> None:
    file = str(write_original(tmp_path / "sd.ckpt", version))
    found = build_unet(file)
    found.save_pretrained(tmp_path / "bin", safe_serialization=False)
    assert (tmp_path / "bin" / "diffusion_pytorch_model.bin").is_file()
    assert same(build_unet(str(tmp_path / "bin")).state_dict(), found.state_dict())
    found.save_pretrained(tmp_path / "half", variant="fp16")
    assert same(build_unet(str(tmp_path / "half")).state_dict(), found.state_dict())
    one = next((tmp_path / "half").glob("*.safetensors"))
    assert same(build_unet(str(one)).state_dict(), found.state_dict())  # the file of a folder is the folder


def test_a_file_with_one_part_alone(tmp_path: Path) -> None:
    """Names without their beginning; of a tower alone, the tensors do not say enough."""
    parts = original_parts(2)
    whole = parts_of(str(write_original(tmp_path / "sd.ckpt", 2)))
    for part, state in list(parts.items())[:2]:
        save_file(state, tmp_path / f"{part}.safetensors")
        stored = stored_part(str(tmp_path / f"{part}.safetensors"), part)  # type: ignore[arg-type]
        assert stored.config == whole[part][0]
        assert same(stored.read(False), whole[part][1])
        assert stored.read(True).keys() == whole[part][1].keys()
        assert {value.device.type for value in stored.read(True).values()} == {"meta"}
    save_file(parts["text_encoder"], tmp_path / "tower.safetensors")
    with pytest.raises(UserError, match=r"is open_clip's: say which one it is with \{arch: ViT-H-14"):
        stored_part(str(tmp_path / "tower.safetensors"), "text_encoder")
    save_file(original_parts(1)["text_encoder"], tmp_path / "clip.safetensors")
    build_unet(str(tmp_path / "unet.safetensors")).save_pretrained(tmp_path / "folder")
    (moved,) = (tmp_path / "folder").glob("*.safetensors")
    moved.rename(tmp_path / "moved.safetensors")
    for name, part in (("clip", "text_encoder"), ("moved", "unet")):
        with pytest.raises(UserError, match=r"no config\.json of the same part lies beside it"):
            stored_part(str(tmp_path / f"{name}.safetensors"), part)  # type: ignore[arg-type]


def test_marks_of_old_trainings_in_a_checkpoint_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `sd-v1-4.ckpt`: a class is the key of a dict. It is never looked for, so nothing of it can run."""
    import sys
    import types

    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    mark = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = mark  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, name, module)
        state = original_state(1)
        torch.save(
            {"state_dict": state, "callbacks": {mark: {"best_model_score": torch.ones(())}}}, tmp_path / "sd.ckpt"
        )
        torch.save(
            {"state_dict": state, "callbacks": {mark: 1}}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False
        )
    for file in ("sd.ckpt", "old.ckpt"):
        assert same(read_state(tmp_path / file), dict(state))
    assert name not in sys.modules


def test_a_layout_has_no_names_for_other_networks() -> None:
    state: State = {}
    with pytest.raises(UserError, match="text_encoder: a single file has no names for a bert"):
        to_original({"text_encoder": ({"model_type": "bert"}, state)}, "sd2")
    with pytest.raises(UserError, match="vae: a single file has no names for a AutoencoderTiny"):
        to_original({"vae": ({"_class_name": "AutoencoderTiny"}, state)}, "sd2")
    config = {"down_block_types": ["AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D"], "block_out_channels": [32]}
    with pytest.raises(UserError, match="have no place in the original layout"):
        to_original({"unet": ({**config, "layers_per_block": 1}, state)}, "sd2")
