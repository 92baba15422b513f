"""The U-Net asked with and without the text, in batches: what every tool that looks at denoising computes with. Source: own."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.models.latent_diffusion import LatentDiffusion


class Outputs(NamedTuple):
    """What the U-Net gives with the empty text and with the text, (B, C, h, w) float32 each."""

    unconditional: Tensor
    conditional: Tensor

    def guided(self, scale: float) -> Tensor:
        """Classifier-free guidance (Ho & Salimans 2022), (B, C, h, w); 1 is the conditional output, to the bit."""
        return guided(self.unconditional, self.conditional, scale)


def guided(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Outputs (B, C, h, w) under guidance of ``scale``; 1 is the conditional one, to the bit."""
    return conditional if scale == 1.0 else unconditional + scale * (conditional - unconditional)


class Asked:
    """A model with some texts, each encoded once, and the empty one. Nothing is kept for a backward pass.

    Args:
        model: in eval mode.
        texts: the prompts; rows of a batch name them by their place.
        batch_size: rows that the U-Net gets at once; changes results by rounding only.
    """

    def __init__(self, model: LatentDiffusion, texts: Sequence[str], batch_size: int = 64) -> None:
        self.model, self.batch_size = model, max(1, batch_size)
        each = ["", *dict.fromkeys(texts)]
        with torch.no_grad():
            self._states = model.encode_texts(each)
        self._rows = torch.tensor([each.index(text) for text in texts], dtype=torch.long)  # (texts,)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, timesteps: Tensor, texts: Tensor) -> Outputs:
        """Ask both ways.

        Args:
            noisy: (B, C, h, w).
            timesteps: (B,).
            texts: (B,) places of the prompts.
        """
        rows = self._rows[texts.cpu()]
        both = self._ask(
            torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), torch.cat([torch.zeros_like(rows), rows])
        )
        return Outputs(*both.chunk(2))

    @torch.no_grad()
    def conditional(self, noisy: Tensor, timesteps: Tensor, texts: Tensor) -> Tensor:
        """With the text alone, (B, C, h, w) float32: half the work, where nothing is guided."""
        return self._ask(noisy, timesteps, self._rows[texts.cpu()])

    @torch.no_grad()
    def guided(self, noisy: Tensor, timesteps: Tensor, texts: Tensor, scale: float) -> Tensor:
        """The guided output, (B, C, h, w) float32; :func:`evaluations` of each row."""
        if scale == 1.0:
            return self.conditional(noisy, timesteps, texts)
        return self(noisy, timesteps, texts).guided(scale)

    def _ask(self, noisy: Tensor, timesteps: Tensor, rows: Tensor) -> Tensor:
        device, found = self.model.device, []
        places = torch.arange(len(noisy)).split(self.batch_size)
        for part in places:
            text = self._states.take(rows[part].to(self._states.states.device))  # states (b, L, D)
            given = noisy[part].to(device, text.states.dtype)
            found.append(self.model.unet(given, timesteps[part].to(device), **text.arguments()).sample.float())
        return torch.cat(found)


def evaluations(guidance_scale: float) -> int:
    """Evaluations of the U-Net that one guided output takes: with and without the text, or with it alone at scale 1."""
    return 1 + (guidance_scale != 1.0)
