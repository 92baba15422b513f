"""RadDINO's features: the stated preprocessing, a small random network of the same kind, and a detour that is told apart."""

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from meddiff.common.errors import UserError
from meddiff.models.feature_extractors import build_extractor, extractor_identity
from meddiff.models.rad_dino import load_rad_dino, rad_dino_input


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=42, patch_size=14, mlp_ratio=2
    )
    place = tmp_path_factory.mktemp("rad-dino") / "one"
    Dinov2Model(config).save_pretrained(place)
    return place


def test_black_and_white_are_what_the_specification_says() -> None:
    for value, expected in ((-1.0, -2.054588), (1.0, 1.816880)):
        for squash in (None, 299):
            found = rad_dino_input(torch.full((1, 3, 64, 96), value), 42, squash)
            assert found.shape == (1, 3, 42, 42)
            assert found.numpy() == pytest.approx(expected, abs=1e-5)


def test_a_portrait_is_cut_and_not_squashed() -> None:
    image = torch.full((1, 3, 128, 64), -1.0)
    image[..., 32:96, :] = 1.0  # the middle square
    assert (rad_dino_input(image, 42)[..., 2:-2, :] > 1.5).all()
    assert (rad_dino_input(image, 42, 299)[..., 2, :] < -1.5).all(), "the published detour shows it all, squashed"


def test_features_are_the_class_token_of_the_network_in_its_folder(folder: Path) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network = Dinov2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = network(rad_dino_input(images, 42)).last_hidden_state[:, 0]
    device = torch.device("cpu")
    native, detour = (build_extractor(name, str(folder), device)(images) for name in ("raddino", "raddino_299"))
    torch.testing.assert_close(native, expected)
    assert not torch.allclose(native, detour, atol=1e-3)
    names = [extractor_identity(name, str(folder)) for name in ("raddino", "raddino_299")]
    assert names[0] != names[1]


def test_what_is_no_dinov2_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No config\.json"):
        load_rad_dino(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "dinov2", "hidden_size": 16}')
    with pytest.raises(UserError, match="holds no Dinov2") as error:
        load_rad_dino(tmp_path)
    assert "\n" not in str(error.value)
