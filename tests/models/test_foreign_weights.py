"""Weights that are none, or another network's: every part refuses them in one sentence that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.models.backbones import build_unet, load_vae, misfit
from meddiff.models.domain_classifier import build_classifier, load_classifier, save_classifier
from meddiff.models.feature_extractors import missing_extractors
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.build import misfit as tower_misfit
from meddiff.models.text.clip_tower import ClipTower
from meddiff.models.weights.clip_folder import write_clip_folder
from meddiff.models.weights.digests import fingerprint
from meddiff.models.weights.fitting import fit_state
from meddiff.models.weights.reading import read_state
from meddiff.models.weights.sources import missing_part
from meddiff.models.weights.token_rows import ROW_IDS, ROWS
from tests.builders.command import call, write_fit
from tests.builders.tiny import TEXT
from tests.builders.weight_files import INSTEAD, MISFITS, State, make_model, replace, rewrite, weights_of, wrapped

NETWORK = {"growth_rate": 8, "block_config": [2, 2], "num_init_features": 8}
PARTS: dict[str, Callable[[str], torch.nn.Module]] = {
    "unet": build_unet,
    "text_encoder": build_text_encoder,
    "vae": load_vae,
    "classifier": load_classifier,
}


@pytest.fixture
def folder(tmp_path: Path, vae_folder: Path) -> Path:
    """A tiny model's parts, and a domain classifier."""
    make_model(tmp_path / "model")
    shutil.copytree(vae_folder, tmp_path / "model" / "vae")
    torch.manual_seed(0)
    save_classifier(build_classifier(NETWORK, list(FINDINGS)), NETWORK, tmp_path / "model" / "classifier")
    return tmp_path / "model"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("instead", INSTEAD)
def test_what_is_no_weights_is_told_as_such(folder: Path, part: str, instead: str) -> None:
    file = weights_of(folder / part)
    replace(file, instead)
    with pytest.raises(UserError, match=INSTEAD[instead][1]) as refused:
        PARTS[part](str(folder / part))
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("change", MISFITS)
def test_weights_that_do_not_fit_are_refused_with_counts_and_names(folder: Path, part: str, change: str) -> None:
    file = weights_of(folder / part)
    rewrite(file, MISFITS[change][0])
    with pytest.raises(UserError, match=MISFITS[change][1]) as refused:
        PARTS[part](str(folder / part))
    assert str(file) in str(refused.value)
    if change == "renamed":  # three names and no more
        assert str(refused.value).count("_v2") == 3


@pytest.mark.parametrize("part", PARTS)
def test_prefixes_of_wrappers_are_understood(folder: Path, part: str) -> None:
    before = PARTS[part](str(folder / part)).state_dict()
    rewrite(weights_of(folder / part), wrapped)
    after = PARTS[part](str(folder / part)).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_command_says_it_before_it_starts(
    folder: Path, shards: Path, vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_fit(tmp_path / "fit.yaml", shards, vae_folder))
    for part in ("unet", "text_encoder", "vae"):
        replace(weights_of(folder / part), "pointer")
        code, _, err = call(capsys, "fit", "-c", config, f"--model.{part}", str(folder))
        assert code == 2
        assert f"error: {part}: {weights_of(folder / part)} is a Git LFS pointer, not weights: git lfs pull\n" in err
    (tmp_path / "page.pt").write_bytes(INSTEAD["page"][0] or b"")
    tower = json.dumps({"arch": "ViT-S-32", "checkpoint": str(tmp_path / "page.pt")})
    code, _, err = call(capsys, "fit", "-c", config, "--model.text_encoder", tower)
    assert code == 2
    assert "page.pt is a web page, not weights" in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_another_networks_weights_are_found_by_the_headers_alone(folder: Path) -> None:
    assert misfit(str(folder), "unet") is misfit(str(folder), "vae") is tower_misfit(str(folder)) is None
    for part in ("unet", "vae", "text_encoder"):
        rewrite(weights_of(folder / part), MISFITS["renamed"][0])
    told = [misfit(str(folder), "unet"), misfit(str(folder), "vae"), tower_misfit(str(folder))]
    assert all(sentence is not None and "are missing" in sentence for sentence in told)


def split_in_two(file: Path) -> Path:
    """A weight file as two, with the index that lists them."""
    state, names = load_file(file), [f"part-{i}.safetensors" for i in range(2)]
    places = {name: names[i % 2] for i, name in enumerate(sorted(state))}
    for one in names:
        save_file({name: state[name] for name, place in places.items() if place == one}, file.parent / one)
    index = file.with_name(f"{file.name}.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    file.unlink()
    return index


def test_weights_in_several_files(folder: Path) -> None:
    before = build_unet(str(folder)).state_dict()
    index = split_in_two(weights_of(folder / "unet"))
    after = build_unet(str(folder)).state_dict()
    assert missing_part(str(folder), "unet") is None
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert fingerprint(folder / "unet")
    second = index.parent / "part-1.safetensors"
    content = second.read_bytes()
    replace(second, "pointer")
    with pytest.raises(UserError, match=r"part-1\.safetensors is a Git LFS pointer"):
        build_unet(str(folder))
    second.unlink()
    with pytest.raises(UserError, match=r"lists 2 files and 1 are missing \(part-1\.safetensors\)"):
        build_unet(str(folder))
    second.write_bytes(content)
    index.write_text(index.read_text().replace("part-1", "../part-1"))
    with pytest.raises(UserError, match="no file beside it"):
        build_unet(str(folder))
    index.write_text("<html>")
    with pytest.raises(UserError, match="is a web page"):
        build_unet(str(folder))


def test_old_names_of_the_published_autoencoders_are_read(folder: Path) -> None:
    before = load_vae(str(folder)).state_dict()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def older(state: State) -> State:
        for new, name in old.items():
            state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
        return state

    rewrite(weights_of(folder / "vae"), older)
    after = load_vae(str(folder)).state_dict()
    assert any(".to_q." in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_trained_rows_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    tower = ClipTower(**TEXT)  # type: ignore[arg-type]
    write_clip_folder(tower.state_dict(), tower.config, tmp_path, torch.tensor([3, 5, 8]))
    file = weights_of(tmp_path)
    whole = file.read_bytes()
    build_text_encoder(str(tmp_path))
    changes: list[Callable[[State], State]] = [
        lambda state: {name: value for name, value in state.items() if name != ROW_IDS},
        lambda state: {name: value for name, value in state.items() if name != ROWS},
        lambda state: {**state, ROW_IDS: state[ROW_IDS][:2]},
        lambda state: {**state, ROW_IDS: state[ROW_IDS] - 4},  # -1 would be the last row of all
        lambda state: {**state, ROW_IDS: state[ROW_IDS] + 49405},
        lambda state: {**state, ROW_IDS: torch.tensor([3, 3, 8])},
        lambda state: {**state, ROWS: state[ROWS] * torch.inf},
    ]
    for change in changes:
        file.write_bytes(whole)
        rewrite(file, change)
        with pytest.raises(UserError, match=r"model\.safetensors (does not fit|holds numbers that are not finite)"):
            build_text_encoder(str(tmp_path))


def test_an_open_clip_checkpoint_is_compared_too(tmp_path: Path) -> None:
    file = tmp_path / "clip.pt"
    torch.manual_seed(0)
    source = {"arch": "ViT-S-32", "checkpoint": str(file)}
    tower = build_text_encoder({"arch": "ViT-S-32"})
    state = {f"module.text.{name}": value for name, value in tower.state_dict().items()}
    extra = {"module.visual.proj": torch.zeros(2), "module.logit_scale": torch.zeros(())}
    torch.save({"state_dict": state | extra}, file)
    found = build_text_encoder(source).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in tower.state_dict().items())
    name = "module.text.ln_final.weight"
    torch.save({"state_dict": {**state, "module.text.ln_final.gain": state[name]}}, file)
    with pytest.raises(UserError, match=r"1 are of no use in it \(module\.text\.ln_final\.gain\)"):
        build_text_encoder(source)
    torch.save({key: value for key, value in state.items() if key != name}, file)
    with pytest.raises(UserError, match=r"1 of [0-9]+ tensors are missing \(ln_final\.weight\)"):
        build_text_encoder(source)
    torch.save(tower, file)  # a whole pickled module runs code when it is read
    with pytest.raises(UserError, match="would run their code"):
        build_text_encoder(source)
    torch.save([1, 2], file)
    with pytest.raises(UserError, match="holds a list, no weights by name"):
        build_text_encoder(source)
    torch.save({"epoch": 3, "w": torch.zeros(2)}, file)
    with pytest.raises(UserError, match="is no state dict: it holds 'epoch', a int"):
        build_text_encoder(source)


def test_a_config_without_its_names_is_told(folder: Path) -> None:
    (folder / "text_encoder" / "config.json").write_text('{"hidden_size": 16}')
    with pytest.raises(UserError, match="has no num_attention_heads, num_hidden_layers, vocab_size"):
        build_text_encoder(str(folder))
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(UserError, match="is of a UNet2DModel"):
        build_unet(str(folder))
    (folder / "classifier" / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="holds a list"):
        load_classifier(str(folder / "classifier"))


def test_extractor_files_are_looked_at_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    replace(weights_of(folder / "classifier"), "pointer")
    replace(tmp_path / "inception.pth", "page")
    problems = missing_extractors({"domain": str(folder / "classifier"), "inception": str(tmp_path / "inception.pth")})
    assert [("Git LFS pointer" in one, "web page" in one) for one in problems] == [(True, False), (False, True)]


def test_a_value_that_float32_cannot_hold_and_a_name_given_twice() -> None:
    own = {"a": torch.zeros(2), "count": torch.tensor(0)}
    with pytest.raises(UserError, match="not finite in 1 of 2"):
        fit_state(own, {"a": torch.tensor([1e300, 0.0], dtype=torch.float64), "count": torch.tensor(1)}, "FILE")
    with pytest.raises(UserError, match=r"1 are of no use in it \(module\.a\)"):
        fit_state(own, {"a": own["a"], "module.a": own["a"], "count": own["count"]}, "FILE")
    found = fit_state(own, {"model.a": torch.ones(2, dtype=torch.float16), "count": torch.tensor(3)}, "FILE")
    assert found["a"].dtype == torch.float32
    assert int(found["count"]) == 3


def test_half_a_pickle_is_damaged(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    replace(tmp_path / "a.pt", "cut")
    with pytest.raises(UserError, match=r"a\.pt is damaged"):
        read_state(tmp_path / "a.pt")
