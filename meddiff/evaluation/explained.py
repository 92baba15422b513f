"""One image and one text, looked at by every tool at every timestep: what ``lightning explain`` and ``model.explain`` show.

Source: own; figures as those of Park, Ju and Lee (2024).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from meddiff.attribution.attention_maps import attention_maps
from meddiff.attribution.overlay import overlay
from meddiff.attribution.strips import animation, panels
from meddiff.attribution.trajectory import Trajectory
from meddiff.attribution.words import Query, special_tokens
from meddiff.common.errors import UserError
from meddiff.evaluation.saliency_tools import ALL, Asked, OnProgress, build_tools
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import resize_maps
from meddiff.models.autoencoder import decode
from meddiff.models.latent_diffusion import LatentDiffusion

Pixels = NDArray[np.uint8]
#: What the end token's maps are called.
END = "(end token)"


@dataclass
class Explained:
    """Maps of one image by timestep.

    Attributes:
        text: the prompt.
        timesteps: S of them, from much noise to little.
        emerging: S pictures of what the model takes the clean image for, uint8 (H, W, 3).
        image: the real image, where there is one.
        maps: ``word WORD``, or a tool -> (S, h, w).
        layers: layer -> attention of all words together, (S, h, w).
        shares: kind of token -> its share of relevance, a value a timestep.
    """

    text: str
    timesteps: list[int]
    emerging: list[Pixels]
    image: Pixels | None = None
    maps: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, Tensor] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=dict)

    def over(self, maps: Tensor) -> list[Pixels]:
        """A row of overlays: over the real image, else over the emerging one."""
        under = [self.image if self.image is not None else one for one in self.emerging]
        size = under[0].shape[:2]
        return [
            overlay(one, heat.numpy()) for one, heat in zip(under, resize_maps(maps, (size[0], size[1])), strict=True)
        ]

    def panels(self) -> Image.Image:
        """The emerging image, then every word and tool, timesteps to the right."""
        rows = {"drawn so far": self.emerging, **{name: self.over(maps) for name, maps in self.maps.items()}}
        return panels(list(rows.values()), list(rows), self._columns)

    def layer_panels(self) -> Image.Image:
        """Attention of all words in each layer, timesteps to the right."""
        return panels([self.over(maps) for maps in self.layers.values()], list(self.layers), self._columns)

    def animation(self) -> bytes:
        """A GIF: the emerging image beside every map, a frame a timestep."""
        rows = [self.emerging, *(self.over(maps) for maps in self.maps.values())]
        return animation(list(zip(*rows, strict=True)), self._columns, ["drawn so far", *self.maps])

    @property
    def _columns(self) -> list[str]:
        return [f"t = {timestep}" for timestep in self.timesteps]


def explain_path(
    model: LatentDiffusion,
    path: Trajectory,
    tools: Sequence[str],
    image: Pixels | None = None,
    paper: bool = False,
    seed: int = 0,
    batch_size: int = 64,
    on_progress: OnProgress | None = None,
) -> Explained:
    """Ask every tool about a saved trajectory.

    Args:
        tools: of :data:`meddiff.evaluation.saliency_tools.TOOLS`; ``attention`` gives a map of every word.
        image: the real image that was noised; None: the path is that of a drawn one.

    Raises:
        UserError: an unknown tool, or no word in the text.
    """
    tokenizer, chosen = model.text_encoder.tokenizer, build_tools(tools, paper)
    kept = {word: tokenizer.kept(word) for word in tokenizer.words(path.text)}
    kept = {word: span for word, span in kept.items() if span[1] > span[0]}
    if not kept:
        raise UserError("There is no word in the text to ask for: give a phrase such as 'Left pleural effusion.'.")
    rows = torch.zeros(len(kept), tokenizer.max_length)  # (K, L)
    for row, (start, stop) in enumerate(kept.values()):
        rows[row, start:stop] = 1.0 / (stop - start)
    times = path.timesteps.tolist()
    with undisturbed(model):
        emerging = list(decode(model.vae, path.clean.to(model.device), model.scaling_factor))
        found = Explained(path.text, times, emerging, image)
        if "attention" in tools:
            groups = torch.cat([rows, special_tokens(tokenizer, path.text)["end"][None]])  # (K + 1, L)
            maps, layers = attention_maps(model, path, groups, batch_size, on_progress)  # (S, layers, K + 1, h, w)
            words = [word.text.strip(".,;:!?") for word in kept]
            names = [
                f"word {word}" if words.count(word) == 1 else f"word {i + 1} {word}" for i, word in enumerate(words)
            ]
            found.maps |= {name: maps[:, :, k].mean(dim=1) for k, name in enumerate([*names, END])}
            found.layers |= {layer: maps[:, i, :-1].mean(dim=1) for i, layer in enumerate(layers)}
        query = Query(rows.mean(dim=0), tuple(word.text for word in kept))
        asked = Asked(
            path.key, path.noisy[-1], path.text, query, path.text.strip(". "), path.text, seed, batch_size, path
        )
        for tool in chosen:
            if tool.name != "attention":
                answer = tool.maps(model, asked, times, on_progress)
                found.shares |= answer.shares
                found.maps |= {channel.tool: maps for channel, maps in answer.maps.items() if channel.layer == ALL}
    return found


def seconds_of_evaluation(model: LatentDiffusion, batch_size: int = 64) -> float:
    """What one U-Net evaluation takes here and now in a batch, from the second of two passes over noise."""
    shape, times = model.latent_shape, torch.full((min(batch_size, 8),), 500, device=model.device)
    with undisturbed(model):
        noisy = torch.zeros(len(times), *shape, device=model.device)
        text = model.encode_texts([""]).expand(len(times))
        for _ in range(2):  # the first one also makes what later ones find
            start = time.monotonic()
            model.unet(noisy.to(text.states.dtype), times, **text.arguments()).sample.float().sum().item()
        return (time.monotonic() - start) / len(times)


def explain_cost(tools: Sequence[str], steps: int, paper: bool = False) -> float:
    """U-Net evaluations of :func:`explain_path`, without those of the trajectory."""
    return sum(tool.cost(steps) for tool in build_tools(tools, paper))
