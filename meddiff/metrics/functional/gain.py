"""What a map's score has that its own control has not: the same map elsewhere, or the same place asked for something else.

On two places the contrast of each is taken against the pixels that lie in neither. So what is bright on one place makes the
other no worse: a map that knows its place has nothing on the other, and a map that answers every question alike has, over
both questions, exactly what it has on the other. Source: own.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import NAN, mask_rows, native_rows, varies
from meddiff.metrics.functional.cnr import contrast_to_noise_ratio, masked_ratio

#: Two places are one where less than this part of either lies outside of the other.
APART = 0.5


class PairedScores(NamedTuple):
    """Contrast-to-noise ratios (N,) float64 of what was asked for, and of its control; both NaN where either is."""

    asked: Tensor
    control: Tensor

    @property
    def gain(self) -> Tensor:
        """(N,) the difference."""
        return self.asked - self.control


def grounding_gain(
    maps: Tensor, places: Tensor, control_maps: Tensor | None = None, control_places: Tensor | None = None
) -> PairedScores:
    """Score maps where they should lie, and under one control.

    Args:
        maps: (N, H, W) float, of the words that ask for what lies in ``places``.
        places: (N, H, W) bool.
        control_maps: (N, H, W) of a control that asks another question of the same image: maps of a finding that is not
            there. They are scored on ``places``; one that is the same everywhere says nothing, which is a score of 0.
        control_places: (N, H, W) bool of a control that looks elsewhere: another finding's mask, the twin's place, another
            patient's box, the mirrored box. ``maps`` are scored on them; pixels of both places count for neither.

    Returns:
        NaN where a ratio is undefined, and where more than half of a place lies in the other: it is no other place.

    Raises:
        UserError: not exactly one control, shapes differ, or places are not boolean.

    Example:
        >>> import torch
        >>> places = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> places[:, 2:5, 1:4] = True
        >>> texture = torch.linspace(0, 0.5, 64).reshape(1, 8, 8)
        >>> found = grounding_gain(texture + places.float(), places, control_places=places.flip(2))
        >>> [round(float(score), 2) for score in (found.asked, found.control)]
        [5.28, -0.18]
    """
    if (control_maps is None) == (control_places is None):
        raise UserError("A gain needs one control: control_maps or control_places.")
    if control_maps is not None:
        asked, control = contrast_to_noise_ratio(maps, places), contrast_to_noise_ratio(control_maps, places)
        rows, finite = native_rows(control_maps)
        control = torch.where(finite.to(control.device) & ~varies(rows).to(control.device), 0.0, control)
    else:
        assert control_places is not None
        mask_rows(places, maps)
        mask_rows(control_places, maps, "control_places")
        here, there = places & ~control_places, control_places & ~places  # (N, H, W)
        neither = ~(places | control_places)
        asked, control = masked_ratio(maps, here, neither), masked_ratio(maps, there, neither)
        apart = [
            own.sum((1, 2)) >= APART * whole.sum((1, 2)) for own, whole in ((here, places), (there, control_places))
        ]
        asked = asked.masked_fill(~(apart[0] & apart[1]).to(asked.device), NAN)
    undefined = torch.isnan(asked) | torch.isnan(control)
    return PairedScores(asked.masked_fill(undefined, NAN), control.masked_fill(undefined, NAN))
