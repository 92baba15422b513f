"""``model.prototypes(image)`` and ``model.edit(image, {12: 0.8})``."""

from pathlib import Path

import numpy as np
import pytest
import torch

from meddiff.common.errors import UserError
from meddiff.notebook import LoadedModel
from tests.builders.drawn_parts import make_attentive_model
from tests.builders.patronus import tiny_patronus
from tests.builders.planted_prototypes import PLACES, WHOLE, planted_patronus, planted_pictures


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel(planted_patronus())


@pytest.fixture(scope="module")
def image(loaded: LoadedModel) -> np.ndarray:
    x0 = planted_pictures(loaded.model, torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0, 0.0]]))  # type: ignore[arg-type]
    return loaded.model.to_images(x0)[0]  # type: ignore[operator,no-any-return]


def test_an_image_tells_which_prototypes_it_has_and_where(loaded: LoadedModel, image: np.ndarray) -> None:
    maps = loaded.prototypes(image)
    assert maps.found[0].number == 3
    y, x = PLACES[3]
    assert maps.found[0].box == (y, x, y + 5, x + 5)
    assert maps.heat.shape == (6, 16, 16)
    top = np.unravel_index(int(maps.heat[3].argmax()), (16, 16))
    assert y <= top[0] < y + 5
    assert x <= top[1] < x + 5
    assert maps.activations.argmax() == 3
    assert maps.plot(3).size == (16, 16)
    assert maps.patches(3).height > 90
    with pytest.raises(UserError, match="no prototype 9"):
        maps.plot(9)


def test_an_edit_changes_its_patch_and_nothing_else(loaded: LoadedModel, image: np.ndarray) -> None:
    found = loaded.edit(image, {0: WHOLE}, steps=20)
    assert found.after[0] > found.before[0] + 0.5
    change = np.abs(np.asarray(found.edited, float) - np.asarray(found.unedited, float)).mean(axis=2)
    y, x = PLACES[0]
    assert change[y : y + 5, x : x + 5].mean() > 20
    change[y : y + 5, x : x + 5] = 0
    assert change.max() < 10
    # without an edit the image comes back
    assert np.abs(np.asarray(found.unedited, float) - np.asarray(found.image, float)).mean() < 6


def test_an_image_of_any_size_is_taken_in_its_middle(loaded: LoadedModel, image: np.ndarray) -> None:
    wide = np.full((16, 30, 3), 90, np.uint8)
    wide[:, 7:23] = image
    assert loaded.prototypes(wide).found[0].number == 3


def test_what_cannot_be_is_refused(loaded: LoadedModel, image: np.ndarray, vae_folder: Path) -> None:
    with pytest.raises(UserError, match="There is no prototype 6"):
        loaded.edit(image, {6: 1.0})
    with pytest.raises(UserError, match="cannot be set to 12"):
        loaded.edit(image, {0: 12.0})
    with pytest.raises(UserError, match="reads no text"):
        loaded.edit(image, {0: 1.0}, text="Edema.")
    with pytest.raises(UserError, match="has no prototypes"):
        LoadedModel(make_attentive_model(8, vae=str(vae_folder))).prototypes(image)
    told = LoadedModel(tiny_patronus(text=True, vae=str(vae_folder)))
    assert told.edit(image, {0: 1.0}, text="Edema.", steps=2).edited.size == (64, 64)
