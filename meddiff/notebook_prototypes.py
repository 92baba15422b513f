"""A model with prototypes in a notebook: which an image has, where, and the image with more of them. Source: own."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from meddiff.attribution.inversion import ddim_grid, denoise, edited
from meddiff.attribution.overlay import overlay
from meddiff.attribution.prototype_edits import check_edits, in_pixels, inverted, patch_of
from meddiff.attribution.prototype_maps import maps_on_input
from meddiff.attribution.strips import panels
from meddiff.common.errors import UserError
from meddiff.evaluation.prototype_inputs import patronus
from meddiff.evaluation.prototype_media import framed, patch
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import resize_maps
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.patronus import Patronus

Pixels = NDArray[np.uint8]


class Found(NamedTuple):
    """One prototype in an image.

    Attributes:
        number: of the prototype.
        activation: how near the nearest patch comes to it, between 0 and 9.22.
        box: (y0, x0, y1, x1) of that patch in pixels, ends excluded.
    """

    number: int
    activation: float
    box: tuple[int, int, int, int]


class PrototypeMaps:
    """The prototypes of an image.

    Attributes:
        image: uint8 (H, W, 3), as the model takes it.
        found: all prototypes, the strongest first.
        heat: (m, H, W) float32, the activation of each prototype at each place.
    """

    def __init__(self, image: Pixels, found: Sequence[Found], heat: NDArray[np.float32]) -> None:
        self.image, self.found, self.heat = image, list(found), heat

    @property
    def activations(self) -> NDArray[np.float64]:
        """(m,), by number."""
        return np.array([one.activation for one in sorted(self.found)])

    def plot(self, number: int | None = None) -> Image.Image:
        """The map of a prototype over the image, with the patch that is nearest to it framed; None takes the strongest.

        Raises:
            UserError: no such prototype.
        """
        number = self.found[0].number if number is None else number
        one = next((one for one in self.found if one.number == number), None)
        if one is None:
            raise UserError(f"There is no prototype {number}: this model has 0 to {len(self.found) - 1}.")
        return Image.fromarray(framed(overlay(self.image, self.heat[number]), one.box, max(self.image.shape[:2])))

    def patches(self, most: int = 8) -> Image.Image:
        """The patches of the strongest prototypes beside each other."""
        some = self.found[:most]
        titles = [f"{one.number}: {one.activation:.2f}" for one in some]
        return panels([[patch(self.image, one.box) for one in some]], [""], titles)


class Edited(NamedTuple):
    """An image drawn again with other activations.

    Attributes:
        image: as it came, as the model takes it.
        unedited: drawn again without an edit: what differs from ``image`` the edit has not done.
        edited: drawn again with it.
        before, after: (m,) activations of ``image`` and of ``edited``.
    """

    image: Image.Image
    unedited: Image.Image
    edited: Image.Image
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def find_prototypes(model: LatentDiffusion, ema: bool, crop: Pixels) -> PrototypeMaps:
    """The prototypes of an image that has the model's size: uint8 (H, W) or (H, W, 3).

    Raises:
        UserError: a model without prototypes.
    """
    known = patronus(model)
    with undisturbed(known), known.weights(ema):
        x0 = known.to_space([crop])  # (1, C, h, w)
        values = known.activations(x0)[0]  # (m,)
        size = (int(x0.shape[-2]), int(x0.shape[-1]))
        heat = maps_on_input(known.activation_maps(x0)[0].cpu(), known.prototypes.layers, size)  # (m, h, w)
        order = torch.argsort(values, descending=True, stable=True).tolist()
        boxes = {one: in_pixels(patch_of(known, one, x0[0]), known.downsample) for one in order}
        image = _picture(known, x0)
    height, width = image.shape[:2]
    full = resize_maps(heat, (height, width))
    return PrototypeMaps(image, [Found(one, float(values[one]), boxes[one]) for one in order], full.float().numpy())


def edit_image(
    model: LatentDiffusion, ema: bool, crop: Pixels, edits: Mapping[int, float], text: str | None, steps: int
) -> Edited:
    """An image of the model's size, inverted and drawn again with some activations set.

    Raises:
        UserError: a model without prototypes, no such prototype, a value that no image has, or a text for a model that
            reads none.
    """
    known = patronus(model)
    check_edits(edits, known.m)
    if text is not None and not known.reads_text:
        raise UserError("This model reads no text: leave text out.")
    texts = [text or ""] if known.reads_text else None
    with undisturbed(known), known.weights(ema):
        timesteps = ddim_grid(steps, len(known.noise_schedule.alphas_cumprod))
        start = inverted(known, known.to_space([crop]), timesteps, texts)
        drawn = []
        for told in (start.activations, edited(start.activations, dict(edits))):
            drawn.append(denoise(known, start.noise, known.conditioning(told, texts), timesteps))
        after = known.activations(drawn[1])[0].double().cpu().numpy()
        image, unedited, result = (Image.fromarray(_picture(known, x)) for x in (start.x0, *drawn))
    return Edited(image, unedited, result, start.activations[0].double().cpu().numpy(), after)


def _picture(model: Patronus, x: Tensor) -> Pixels:
    return model.to_images(x)[0]
