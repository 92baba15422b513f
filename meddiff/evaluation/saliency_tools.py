"""The tools whose maps are compared by timestep: what each is asked, what it answers, what that costs. Source: own.

A tool is asked by a phrase about an image and answers with maps, one a timestep of the noise. All are asked alike, so that all
can be scored alike (:mod:`meddiff.evaluation.saliency_scores`), on the image's own finding and on one that it does not have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.attribution.recorder import EachLayer
from meddiff.attribution.words import Query, special_tokens
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion

#: Of a tool's map: the mean over the layers that it reads.
ALL = "all"


class Channel(NamedTuple):
    """Name of one series of maps.

    Attributes:
        tool: as tables call it; one tool may have several (its word's map, the end token's).
        layer: of the U-Net, or :data:`ALL`.
    """

    tool: str
    layer: str = ALL


@dataclass(frozen=True)
class Asked:
    """A phrase about an image.

    Attributes:
        key: of the image; its noise hangs on (seed, key, timestep), whatever it is asked.
        latents: (C, h, w), scaled.
        phrase: the prompt.
        query: the words of the phrase that ask for the finding.
        seed: of the noise.
        batch_size: forward passes at once; changes no result.
    """

    key: str
    latents: Tensor
    phrase: str
    query: Query
    seed: int = 0
    batch_size: int = 64


#: Called with the number of U-Net evaluations just done.
OnProgress = Callable[[int], object]


class Tool(Protocol):
    """What makes maps by timestep.

    Attributes:
        name: by which it is asked for.
        slow: takes so many passes that it is asked at few timesteps and of few phrases.
    """

    name: str
    slow: bool

    def cost(self, timesteps: int) -> float:
        """U-Net evaluations of one asking: a forward pass counts 1, one with its gradient 3."""
        ...

    def maps(
        self, model: LatentDiffusion, asked: Asked, timesteps: Sequence[int], on_progress: OnProgress | None = None
    ) -> dict[Channel, Tensor]:
        """Maps (S, h, w) float32 of each channel, one a timestep."""
        ...


class Attention:
    """Cross-attention of the finding's words by timestep, over all layers and in each; beside it the end token's."""

    name, slow = "attention", False

    def cost(self, timesteps: int) -> float:
        """One forward pass a timestep."""
        return float(timesteps)

    def maps(
        self, model: LatentDiffusion, asked: Asked, timesteps: Sequence[int], on_progress: OnProgress | None = None
    ) -> dict[Channel, Tensor]:
        """Channels ``attention`` (all layers, and each), ``end_token``: (S, h, w)."""
        end = special_tokens(model.text_encoder.tokenizer, asked.phrase)["end"]
        groups = torch.stack([asked.query.weights, end])  # (2, L)
        item = GroundingItem(asked.key, asked.latents, asked.phrase, groups)
        layers = EachLayer()
        passed = grounding_pass(
            model, [item], timesteps, asked.seed, asked.batch_size, reducer=layers, on_progress=on_progress
        )
        maps = torch.stack([one.maps for one in passed])  # (S, layers, 2, h, w)
        mean = maps.mean(dim=1)  # (S, 2, h, w)
        found = {Channel(self.name): mean[:, 0], Channel("end_token"): mean[:, 1]}
        return found | {Channel(self.name, layer): maps[:, i, 0] for i, layer in enumerate(layers.layers)}


#: Name -> what makes a tool with the options of a measurement.
TOOLS: Mapping[str, Callable[[], Tool]] = {"attention": Attention}


def build_tools(names: Sequence[str]) -> list[Tool]:
    """The tools of these names, in their order.

    Raises:
        UserError: a name that there is not, twice the same, or none.
    """
    unknown = [name for name in names if name not in TOOLS]
    if unknown or not names or len(set(names)) != len(names):
        raise UserError(
            f"tools are {', '.join(names) or 'none'}: name one or several of {', '.join(TOOLS)}, each once."
        )
    return [TOOLS[name]() for name in names]
