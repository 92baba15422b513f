"""Feature extractors from weight files (random weights of the real networks)."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.domain_classifier import build_classifier
from meddiff.models.feature_extractors import build_extractor, default_pathologies, missing_extractors

IMAGES = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
CPU = torch.device("cpu")


def test_xrv_features_are_the_networks_own_at_224(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = {"growth_rate": 32, "block_config": (6, 12, 24, 16), "num_init_features": 64}
    model = build_classifier(network, default_pathologies()).eval()
    save_file(model.state_dict(), tmp_path / "xrv224.safetensors")
    found = build_extractor("xrv224", str(tmp_path / "xrv224.safetensors"), CPU)(IMAGES)
    resized = torch.nn.functional.interpolate(
        IMAGES.mean(1, keepdim=True) * 1024, size=(224, 224), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        torch.testing.assert_close(found, model.features2(resized))
    assert found.shape == (2, 1024)


def test_inception_features_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    made: dict[str, Tensor] = {}

    def keep(module: torch.nn.Module, state: Mapping[str, Tensor], **_: object) -> None:
        made.update(module.state_dict())

    torch.save({}, tmp_path / "empty.pth")
    torch.manual_seed(0)
    with monkeypatch.context() as patch:  # the class cannot be built without weights: take its random ones
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", keep)
        FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(tmp_path / "empty.pth")
        )
    torch.save(made, tmp_path / "inception.pth")
    found = build_extractor("inception", str(tmp_path / "inception.pth"), CPU)(IMAGES)
    assert found.shape == (2, 2048)
    assert torch.isfinite(found).all()
    assert not torch.equal(found[0], found[1])


def test_missing_and_unsafe_weights_are_refused(tmp_path: Path) -> None:
    assert missing_extractors({"domain": "assets/phantom_classifier"}) == []
    assert "No weights at" in missing_extractors({"inception": str(tmp_path / "none.pth")})[0]
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(b"")
    with pytest.raises(UserError, match="safetensors"):
        build_extractor("xrv224", str(pickled), CPU)
