"""The protocols of the literature: what the networks are fed, what is taken from them, and what identifies them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.models.domain_classifier import build_classifier, save_classifier
from meddiff.models.feature_extractors import (
    EXTRACTORS,
    Extractor,
    build_extractor,
    extractor_identity,
    missing_extractors,
)
from meddiff.models.inception import inception_features, load_inception, paper_input, trunk
from meddiff.models.xrv import DENSENET_121, default_pathologies, load_xrv, xrv_scores

CPU = torch.device("cpu")


def picture(seed: int, side: int, n: int = 2) -> Tensor:
    """Bytes that look like nothing, scaled to [-1, 1]; the three channels differ."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 3, side, side), generator=random).float() / 127.5 - 1.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Random weights of the real networks, as files: extractor -> path."""
    from safetensors.torch import save_file
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_file(build_classifier(DENSENET_121, default_pathologies()).state_dict(), folder / "xrv.safetensors")
    made: dict[str, Tensor] = {}
    torch.save({}, folder / "empty.pth")

    def keep(module: torch.nn.Module, state: Mapping[str, Tensor], **_: object) -> None:
        made.update(module.state_dict())

    with pytest.MonkeyPatch.context() as patch:  # the class cannot be built without weights: take its random ones
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", keep)
        FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth")
        )
    for value in made.values():
        if value.ndim == 4:  # torch's default would let the signal die out over 48 layers
            torch.nn.init.kaiming_normal_(value, nonlinearity="relu")
    torch.save(made, folder / "inception.pth")
    network = {"growth_rate": 8, "block_config": [2, 2], "num_init_features": 8}
    save_classifier(build_classifier(network, ["Edema", "Pneumonia"]), network, folder / "classifier")
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 42, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**tiny)).save_pretrained(folder / "dino")
    homes = {"domain": "classifier", "inception": "inception.pth", "inception_paper": "inception.pth"}
    homes |= {"raddino": "dino", "raddino_299": "dino"}
    return {name: str(folder / homes.get(name, "xrv.safetensors")) for name in EXTRACTORS}


def first_input(network: nn.Module, layer: str, run: Callable[[], Tensor]) -> Tensor:
    """What reaches a layer of a network while ``run`` runs."""
    seen: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    run()
    handle.remove()
    return seen[0]


def network_of(extractor: Extractor) -> nn.Module:
    """Extractors are a function with its network filled in."""
    assert isinstance(extractor, partial)
    network: nn.Module = extractor.args[0]
    return network


def test_every_protocol_gives_finite_features_that_tell_images_apart(files: dict[str, str]) -> None:
    widths = {name: 1024 for name in EXTRACTORS} | {"inception": 2048, "inception_paper": 2048}
    widths |= {"raddino": 16, "raddino_299": 16}
    for name, path in files.items():
        found = build_extractor(name, path, CPU)(picture(1, 64))
        assert found.dtype == torch.float32
        assert len(found) == 2
        assert name == "domain" or found.shape[1] == widths[name]
        assert torch.isfinite(found).all()
        assert not torch.allclose(found[0], found[1])


def test_standard_inception_gets_bytes_and_the_trunk_is_the_network(files: dict[str, str]) -> None:
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as tf_resize

    network, images = load_inception(files["inception"]), picture(2, 80)
    pixels = ((images + 1) * 127.5).round()
    fed = first_input(network, "Conv2d_1a_3x3", lambda: inception_features(network, images))
    torch.testing.assert_close(fed, (tf_resize(pixels, (299, 299), align_corners=False) - 128) / 128)
    values = fed
    for layer in trunk(network):
        values = layer(values)
    torch.testing.assert_close(values.flatten(1), inception_features(network, images))


def test_the_papers_inception_is_normalised_twice(files: dict[str, str]) -> None:
    flat = torch.stack([torch.full((3, 32, 32), value) for value in (-1.0, 0.0, 1.0)])
    assert paper_input(flat).amax(dim=(1, 2, 3)).tolist() == pytest.approx([-3.0, -1.0, 1.0], abs=1e-5)
    extractor, images = build_extractor("inception_paper", files["inception_paper"], CPU), picture(3, 320)
    fed = first_input(network_of(extractor), "Conv2d_1a_3x3", lambda: extractor(images))
    rows = torch.arange(299) * 320 / 299 + (320 / 299 - 1) / 2  # half-pixel centres, no antialiasing
    low = rows.floor().long()
    high, part = (low + 1).clamp(max=319), (rows - low)[:, None]
    by_rows = images[:, :, low] * (1 - part) + images[:, :, high] * part
    part = part[:, 0]
    expected = 2 * (by_rows[..., low] * (1 - part) + by_rows[..., high] * part) - 1
    torch.testing.assert_close(fed, expected, rtol=0, atol=1e-3)  # places are float32
    standard = build_extractor("inception", files["inception"], CPU)(images)
    assert not torch.allclose(extractor(images), standard, rtol=0.05)


@pytest.mark.parametrize(("name", "side"), [("xrv224", 224), ("xrv512", 512)])
def test_xrv_protocols_resize_explicitly(files: dict[str, str], name: str, side: int) -> None:
    extractor, images = build_extractor(name, files[name], CPU), picture(4, 96, 1)
    fed = first_input(network_of(extractor), "features.conv0", lambda: extractor(images))
    grey = images.mean(1, keepdim=True) * 1024
    torch.testing.assert_close(fed, F.interpolate(grey, size=(side, side), mode="bilinear", antialias=True))
    found = extractor(images)
    with torch.no_grad():
        torch.testing.assert_close(found, network_of(extractor).features(fed).relu().mean(dim=(2, 3)))
    assert found.min() >= 0
    same = picture(5, side, 1)  # of the right size already: untouched
    torch.testing.assert_close(
        first_input(network_of(extractor), "features.conv0", lambda: extractor(same)),
        same.mean(1, keepdim=True) * 1024,
    )


def test_xrv_gap_has_no_relu_no_resizing_and_values_from_0_to_1(files: dict[str, str]) -> None:
    extractor, images = build_extractor("xrv_gap", files["xrv_gap"], CPU), picture(6, 96)
    fed = first_input(network_of(extractor), "features.conv0", lambda: extractor(images))
    torch.testing.assert_close(fed, ((images + 1) / 2).mean(1, keepdim=True))
    with torch.no_grad():
        expected = network_of(extractor).features(fed).mean(dim=(2, 3))
    torch.testing.assert_close(extractor(images), expected)
    assert expected.min() < 0


def test_xrv_scores_are_the_networks_logits_at_224(files: dict[str, str]) -> None:
    model, images = load_xrv(files["xrv224"]), picture(7, 224)
    with torch.no_grad():
        torch.testing.assert_close(xrv_scores(model, images), model(images.mean(1, keepdim=True) * 1024))
    assert model.pathologies == default_pathologies()


def test_identity_follows_name_version_and_weights(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    before = {name: extractor_identity(name, path) for name, path in files.items()}
    assert len({tuple(one.values()) for one in before.values()}) == len(EXTRACTORS)
    state = load_file(files["xrv224"])
    state["classifier.bias"][0] += 1e-3
    save_file(state, tmp_path / "other.safetensors")
    assert extractor_identity("xrv224", str(tmp_path / "other.safetensors")) != before["xrv224"]
    config = Path(files["domain"]) / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"growth_rate": 8', '"growth_rate": 9'))
    assert extractor_identity("domain", files["domain"])["weights"] != before["domain"]["weights"]
    config.write_text(text)
    assert extractor_identity("domain", files["domain"]) == before["domain"]
    monkeypatch.setitem(EXTRACTORS, "xrv_gap", replace(EXTRACTORS["xrv_gap"], version=2))
    assert extractor_identity("xrv_gap", files["xrv_gap"]) != before["xrv_gap"]


def test_weights_of_another_network_and_damaged_ones_are_told(files: dict[str, str], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="another network"):
        build_extractor("xrv512", str(tmp_path / "other.safetensors"), CPU)
    (tmp_path / "half.safetensors").write_bytes(Path(files["xrv224"]).read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        build_extractor("xrv_gap", str(tmp_path / "half.safetensors"), CPU)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="another network"):
        build_extractor("inception_paper", str(tmp_path / "other.pth"), CPU)
    assert "there are domain, inception" in missing_extractors({"xrv": files["xrv224"]})[0]
    with pytest.raises(UserError, match="No weights"):
        extractor_identity("inception", str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"config\.json"):
        extractor_identity("domain", str(tmp_path))


def test_extractors_with_a_missing_renamed_or_broken_tensor_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(files["xrv224"])
    first = next(name for name in state if name.endswith("conv0.weight"))
    save_file({name: value for name, value in state.items() if name != first}, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=rf"1 of [0-9]+ tensors are missing \({first}\)"):
        build_extractor("xrv512", str(tmp_path / "less.safetensors"), CPU)
    inception = torch.load(files["inception"], weights_only=True)
    torch.save({f"module.{name}": value for name, value in inception.items()}, tmp_path / "wrapped.pth")
    images = picture(2, 80)
    whole, wrapped = (
        build_extractor("inception", path, CPU)(images) for path in (files["inception"], str(tmp_path / "wrapped.pth"))
    )
    assert torch.equal(whole, wrapped)
    inception["Conv2d_1a_3x3.conv.weight"][0] = torch.inf
    torch.save(inception, tmp_path / "broken.pth")
    with pytest.raises(UserError, match=r"not finite in 1 of [0-9]+ tensors \(Conv2d_1a_3x3\.conv\.weight\)"):
        build_extractor("inception", str(tmp_path / "broken.pth"), CPU)


def test_inception_gives_no_features_of_an_image_that_is_not_finite(files: dict[str, str]) -> None:
    images = picture(2, 80)
    images[1, 0, 3, 3] = torch.nan
    found = build_extractor("inception", files["inception"], CPU)(images)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()
