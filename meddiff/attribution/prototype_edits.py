"""Change an activation, draw again from the same noise: what is modelled by a prototype, where, and from which timestep on.

An image is inverted once to the noise that it would be drawn from, and drawn again with one activation set to another
value. All that is seen on the way, the estimates of the clean image at every timestep, is encoded again: so one drawing
answers *what* and *where* (the picture and the patch nearest to the prototype) and *when*
(:mod:`meddiff.attribution.emergence`). Source: Weng et al. 2026, spec/patronus_and_visual_analysis.md, A7.1, A7.6; the
watching and the shared drawing own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.attribution.inversion import denoise, invert
from meddiff.common.errors import UserError
from meddiff.models.patronus import Patronus
from meddiff.models.prototypes import EPS, PrototypeEncoder
from meddiff.models.receptive_field import box_of

#: Called with a number of U-Net evaluations that are done.
Told = Callable[[int], object]
#: What no activation passes: log(1 / eps), at distance 0.
MOST = 9.22


class Watched(NamedTuple):
    """An image as it was drawn.

    Attributes:
        clean: (n, C, h, w), the end.
        curves: of each encoder, (T, n, m): activations of the estimate of the clean image at each timestep.
    """

    clean: Tensor
    curves: list[Tensor]


def check_edits(edits: Mapping[int, float], prototypes: int) -> None:
    """Refuse what no image can have.

    Raises:
        UserError: no such prototype, or a value outside of (0, 9.22).
    """
    for number, value in edits.items():
        if not 0 <= number < prototypes:
            raise UserError(f"There is no prototype {number}: this model has {prototypes}, 0 to {prototypes - 1}.")
        if not 0 < value < MOST:
            raise UserError(
                f"Prototype {number} cannot be set to {value}: activations lie between 0 and {math.log(1 / EPS):.2f}."
            )


def watch(
    model: Patronus,
    noise: Tensor,
    activations: Tensor | None,
    timesteps: Sequence[int],
    encoders: Sequence[PrototypeEncoder] = (),
    texts: Sequence[str] | None = None,
) -> Watched:
    """Draw from ``noise`` (n, C, h, w) and encode what is seen on the way.

    Args:
        activations: (n, m); None draws without prototypes.
        timesteps: decreasing, of :func:`meddiff.attribution.inversion.ddim_grid`.
        encoders: whose activations are kept.
        texts: of the images, where the model takes any.
    """
    seen: list[list[Tensor]] = [[] for _ in encoders]

    def on_clean(step: int, timestep: int, clean: Tensor) -> None:
        for encoder, curve in zip(encoders, seen, strict=True):
            curve.append(encoder(clean).cpu())

    with torch.no_grad():
        conditioning = model.conditioning(activations, texts)
        if len(conditioning.states) != len(noise):  # without prototypes and texts there is one for all
            conditioning = conditioning.expand(len(noise))
        clean = denoise(model, noise, conditioning, timesteps, on_clean)
    return Watched(clean.cpu(), [torch.stack(curve) for curve in seen])


class Inverted(NamedTuple):
    """Images, and the noise that they are drawn from.

    Attributes:
        x0: (n, C, h, w).
        activations: (n, m) of the images.
        noise: (n, C, h, w), x_T.
    """

    x0: Tensor
    activations: Tensor
    noise: Tensor


def inverted(model: Patronus, x0: Tensor, timesteps: Sequence[int], texts: Sequence[str] | None = None) -> Inverted:
    """Invert images (n, C, h, w) with their own activations; costs n evaluations a timestep, once for all edits."""
    x0 = x0.to(model.device)
    with torch.no_grad():
        activations = model.activations(x0)
        noise = invert(model, x0, model.conditioning(activations, texts), timesteps)
    return Inverted(x0, activations, noise)


class View(NamedTuple):
    """A prototype in one picture.

    Attributes:
        image: which of the images.
        before, after: its activation in the image and in the picture that was drawn.
        picture: (C, h, w), drawn, or the image itself.
        box: (y0, x0, y1, x1) of the nearest patch in cells of the picture, ends excluded.
    """

    image: int
    before: float
    after: float
    picture: Tensor
    box: tuple[int, int, int, int]


def best_view(model: Patronus, prototype: int, before: Tensor, pictures: Tensor) -> View:
    """The picture with most of a prototype, and the patch that has it.

    Args:
        before: (n, m) activations of the images.
        pictures: (n, C, h, w) drawn from them with the prototype raised.
    """
    with torch.no_grad():
        after = model.activations(pictures.to(model.device))[:, prototype].cpu()  # (n,)
    image = int(after.nan_to_num(-1.0).argmax())
    picture = pictures[image]
    return View(
        image, float(before[image, prototype]), float(after[image]), picture, patch_of(model, prototype, picture)
    )


def patch_of(model: Patronus, prototype: int, picture: Tensor) -> tuple[int, int, int, int]:
    """(y0, x0, y1, x1) of the receptive field of the patch of a picture (C, h, w) that is nearest to a prototype."""
    with torch.no_grad():
        row, column = model.prototypes.nearest(picture[None].to(model.device))[0, prototype].tolist()
    height, width = picture.shape[-2:]
    return box_of((int(row), int(column)), model.prototypes.layers, (int(height), int(width)))


def in_pixels(box: tuple[int, int, int, int], downsample: int) -> tuple[int, int, int, int]:
    """A box of cells in pixels of the decoded picture."""
    y0, x0, y1, x1 = (place * downsample for place in box)
    return y0, x0, y1, x1


def natural_order(activations: Tensor, prototype: int, number: int) -> list[int]:
    """The real images with most of a prototype, (N, m): no edit and no drawing stands between them and the eye."""
    order = torch.argsort(activations[:, prototype], descending=True, stable=True)
    return [int(place) for place in order[:number]]
