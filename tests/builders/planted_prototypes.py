"""A Patronus that is known: prototype j draws its patch at its place, from a timestep on that is known, too."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from tests.builders.patronus import tiny_patronus

if TYPE_CHECKING:
    from meddiff.models.patronus import Patronus

#: Activations of a picture without a patch reach FLOOR (they are distances to plain grey); WHOLE draws a whole patch.
FLOOR, WHOLE = 3.2, 5.0
#: Side of the pictures, upper left corners of the patches (5 x 5), deviation of the noise in pictures.
SIDE, PLACES, NOISE = 16, ((1, 1), (1, 10), (10, 1), (10, 10), (5, 5), (5, 10)), 0.05


class PlantedUnet(nn.Module):
    """The best prediction of noise for pictures that are normal around a mean which the activations give.

    Args:
        heard: timestep from which on the activations are listened to; above it all are taken for 0.
        along: prototype -> another one that is drawn with it.
    """

    def __init__(self, model: "Patronus", heard: int, along: Mapping[int, int]) -> None:
        super().__init__()
        self.config, self.heard, self.along = model.unet.config, heard, along
        self.alphas = model.noise_schedule.alphas_cumprod
        self.weight = nn.Parameter(torch.zeros(()))  # says where the model is
        draws = torch.Generator().manual_seed(7)
        self.patches = torch.randint(0, 2, (model.m, 5, 5), generator=draws) * 2.0 - 1.0

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def mean(self, activations: Tensor) -> Tensor:
        """Pictures (B, 1, 16, 16) that activations (B, 6) draw."""
        return self.paint(((activations - FLOOR) / (WHOLE - FLOOR)).clamp(0.0, 1.0))

    def paint(self, amplitude: Tensor) -> Tensor:
        """Pictures (B, 1, 16, 16) with patches of these amplitudes (B, 6), 0 to 1."""
        drawn = torch.full((len(amplitude), 1, SIDE, SIDE), -0.3)
        for one, other in self.along.items():
            amplitude = amplitude.clone()
            amplitude[:, other] = torch.maximum(amplitude[:, other], amplitude[:, one])
        for number, (y, x) in enumerate(PLACES):
            drawn[:, 0, y : y + 5, x : x + 5] += 0.7 * self.patches[number] * amplitude[:, number].view(-1, 1, 1)
        return drawn

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor, **_: object) -> SimpleNamespace:
        heard = class_labels * (t <= self.heard).float()[:, None]
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        variance = alpha * NOISE**2 + (1 - alpha)
        return SimpleNamespace(sample=(1 - alpha).sqrt() * (x - alpha.sqrt() * self.mean(heard)) / variance)


def planted_patronus(heard: int = 1000, along: Mapping[int, int] | None = None) -> "Patronus":
    """A pixel model of 16 px and 6 prototypes, each the features of its own patch."""
    model = tiny_patronus(space="pixel", channels=1)
    model.unet.register_to_config(sample_size=SIDE)
    planted = PlantedUnet(model, heard, along or {})
    model.unet = cast(nn.Module, planted)  # type: ignore[assignment]
    with torch.no_grad():
        pictures = planted.paint(torch.eye(model.m))
        features = model.prototypes.features(pictures)  # (m, D, H', W')
        for number, (y, x) in enumerate(PLACES):
            # fields of 5 begin at -1: the cell that looks at the patch stands one lower and further right
            model.prototypes.vectors[number] = features[number, :, y + 1, x + 1]
    return model


def planted_pictures(model: "Patronus", amplitudes: Tensor, seed: int = 0) -> Tensor:
    """(B, 1, 16, 16) with patches of these amplitudes (B, 6), 0 to 1."""
    unet = cast(PlantedUnet, model.unet)
    draws = torch.Generator().manual_seed(seed)
    return unet.paint(amplitudes) + NOISE * torch.randn(len(amplitudes), 1, SIDE, SIDE, generator=draws)
