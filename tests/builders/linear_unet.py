"""A U-Net that is linear in its input, so that every gradient inside it is known by hand."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.text.build import build_text_encoder
from tests.builders.tiny import TEXT

CHANNELS = 4


class Config(dict[str, object]):
    """As diffusers' configurations: names as keys and as attributes."""

    def __getattr__(self, name: str) -> object:
        return self[name]


class Part(nn.Module):
    """What DF-CAM looks for: ``resnets`` in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([nn.Conv2d(CHANNELS, 6, 3, padding=1, bias=False), nn.Conv2d(6, 5, 1, bias=False)])


class LinearUnet(nn.Module):
    """Output = W3 W2 (W1 * x) + (mean of the text) in each channel; a layer that gives nothing stands beside the path."""

    is_gradient_checkpointing = False

    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.config = Config(in_channels=CHANNELS, sample_size=size, cross_attention_dim=16)
        self.down_blocks = nn.ModuleList([Part()])
        self.mid_block = nn.Module()
        self.mid_block.resnets = nn.ModuleList([nn.Conv2d(CHANNELS, 3, 1, bias=False)])
        nn.init.zeros_(self.mid_block.resnets[0].weight)
        self.conv_out = nn.Conv2d(5, CHANNELS, 1, bias=False)
        self.spread = nn.Conv2d(3, CHANNELS, 1, bias=False)
        self.of_text = nn.Linear(16, CHANNELS, bias=False)

    def forward(
        self, x: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor, encoder_attention_mask: None
    ) -> object:
        """(B, C, h, w) -> the same in ``sample``."""
        first, second = self.down_blocks[0].resnets
        text = self.of_text(encoder_hidden_states.mean(dim=1))[:, :, None, None]
        sample = self.conv_out(second(first(x))) + self.spread(self.mid_block.resnets[0](x)) + text
        return SimpleNamespace(sample=sample)


def linear_model(seed: int = 0) -> LatentDiffusion:
    """A model around it."""
    torch.manual_seed(seed)
    tower = build_text_encoder(TEXT)
    with torch.no_grad():
        tower.token_embedding.weight.mul_(30)
    return LatentDiffusion(LinearUnet(), tower, NoiseSchedule("epsilon")).eval()  # type: ignore[arg-type]
