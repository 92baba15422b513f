"""A denoiser whose dependence on its input is planted, so that it is known which map is right."""

from types import SimpleNamespace
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from torch import Tensor, nn

from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.text.build import build_text_encoder
from tests.builders.tiny import TEXT


class PlantedUnet(nn.Module):
    """Looks at one region only: there its output follows the place itself, elsewhere some place of the region.

    Args:
        region: (h, w) bool; empty makes the output the same whatever the input.
        heard: (h, w) bool, where the text adds to the output (as much of the input as its second token says).
    """

    def __init__(self, region: Tensor, heard: Tensor | None = None) -> None:
        super().__init__()
        height, width = region.shape
        self.config = FrozenDict(sample_size=(height, width), in_channels=4, cross_attention_dim=TEXT["width"])
        self.weight = nn.Parameter(torch.ones(1))
        places = torch.arange(height * width).view(height, width)
        inside = places[region]
        draw = torch.Generator().manual_seed(0)
        source = places.clone()
        if len(inside):
            source[~region] = inside[torch.randint(len(inside), (int((~region).sum()),), generator=draw)]
        self.source, self.blind = source.flatten(), not len(inside)
        self.heard = (torch.zeros_like(region) if heard is None else heard).float()
        self.fixed = torch.randn(4, height, width, generator=draw)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
    ) -> SimpleNamespace:
        looked = sample.flatten(2)[..., self.source].view_as(sample)
        output = self.fixed.expand_as(sample) if self.blind else looked
        amount = encoder_hidden_states[:, 1, 0].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=self.weight * (output + amount * self.heard * sample))


def planted_model(region: Tensor, heard: Tensor | None = None) -> LatentDiffusion:
    """A model around a :class:`PlantedUnet`, in eval mode."""
    unet = cast(UNet2DConditionModel, PlantedUnet(region, heard))
    return LatentDiffusion(unet, build_text_encoder(TEXT), NoiseSchedule()).eval()


def block(size: int, top: int, left: int, height: int, width: int) -> Tensor:
    """(size, size) bool with one rectangle."""
    region = torch.zeros(size, size, dtype=torch.bool)
    region[top : top + height, left : left + width] = True
    return region
