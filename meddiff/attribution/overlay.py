"""A heat map over its image. Source: own."""

import numpy as np
from numpy.typing import NDArray

#: Colours of the heat map from low to high (perceptually ordered, readable in greyscale and with colour blindness).
_STOPS = np.array(
    [(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], np.float64
)  # anchor colours of matplotlib's "magma" (CC0)


def colour_map(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values in 0..1, (H, W) -> uint8 RGB (H, W, 3)."""
    places = np.linspace(0, 1, len(_STOPS))
    channels = [np.interp(values, places, _STOPS[:, channel]) for channel in range(3)]
    colours: NDArray[np.uint8] = np.stack(channels, axis=-1).round().astype(np.uint8)
    return colours


def overlay(image: NDArray[np.uint8], heat: NDArray[np.floating], strength: float = 0.65) -> NDArray[np.uint8]:
    """A word's map over a grey or colour image, uint8 (H, W, 3): the stronger the map, the more of it shows.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        heat: float (H, W); stretched from its minimum to its maximum. One that is constant or not finite shows nothing.
    """
    span = float(heat.max() - heat.min())
    level = (heat - heat.min()) / span if 0 < span < np.inf else np.zeros_like(heat)
    grey = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)  # (H, W, 3)
    share = (strength * level)[..., None]
    mixed: NDArray[np.uint8] = ((1 - share) * grey + share * colour_map(level)).round().astype(np.uint8)
    return mixed
