"""The tools whose maps are compared by timestep: what each is asked, what it answers, what that costs. Source: own.

A tool is asked by a phrase about an image and answers with maps, one a timestep of the noise. All are asked alike, so that all
can be scored alike (:mod:`meddiff.evaluation.saliency_scores`), on the image's own finding and on one that it does not have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from meddiff.attribution import df_cam, df_rise, relevance
from meddiff.attribution import trajectory as paths
from meddiff.attribution.attention_maps import attention_maps, concept_maps_of
from meddiff.attribution.cam_targets import Target
from meddiff.attribution.concepts import encode_concepts
from meddiff.attribution.df_cam import CamOptions
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.attribution.recorder import EachLayer
from meddiff.attribution.token_roles import report_roles, token_kinds
from meddiff.attribution.trajectory import Trajectory, renoised
from meddiff.attribution.words import Query, special_tokens
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion

#: Of trajectories that tools of the guided output read.
GUIDANCE = 4.0
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
        label: the finding.
        own: the phrase about what the image does have; the same as ``phrase`` unless an absent finding is asked for.
        seed: of noise and masks.
        batch_size: forward passes at once; changes no result.
        path: the trajectory to read, such as that of a drawn image; None noises ``latents`` to the timesteps that are wanted.
    """

    key: str
    latents: Tensor
    phrase: str
    query: Query
    label: str
    own: str
    seed: int = 0
    batch_size: int = 64
    path: Trajectory | None = None

    def trajectory(
        self, model: LatentDiffusion, timesteps: Sequence[int], text: str, guidance_scale: float
    ) -> Trajectory:
        """The image noised to the timesteps, largest first, and what the U-Net makes of it with a text and without."""
        if self.path is not None:
            return self.path
        item = GroundingItem(self.key, self.latents, text, torch.empty(0, 0))
        return renoised(model, [item], timesteps, self.seed, guidance_scale, self.batch_size)[0]


@dataclass(frozen=True)
class Answer:
    """What a tool says.

    Attributes:
        maps: (S, h, w) float32 of each channel, one a timestep.
        shares: kind of token -> its share of what all tokens have, a value a timestep.
    """

    maps: dict[Channel, Tensor]
    shares: dict[str, list[float]] = field(default_factory=dict)


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
    ) -> Answer:
        """Maps of each channel, and what else the tool says."""
        ...


class Attention:
    """Cross-attention of the finding's words by timestep, over all layers and in each; beside it the end token's."""

    name, slow = "attention", False

    def cost(self, timesteps: int) -> float:
        """One forward pass a timestep."""
        return float(timesteps)

    def maps(
        self, model: LatentDiffusion, asked: Asked, timesteps: Sequence[int], on_progress: OnProgress | None = None
    ) -> Answer:
        """Channels ``attention`` (all layers, and each), ``end_token``: (S, h, w)."""
        end = special_tokens(model.text_encoder.tokenizer, asked.phrase)["end"]
        groups = torch.stack([asked.query.weights, end])  # (2, L)
        if asked.path is not None:
            maps, names = attention_maps(model, asked.path, groups, asked.batch_size, on_progress)
        else:
            item, layers = GroundingItem(asked.key, asked.latents, asked.phrase, groups), EachLayer()
            passed = grounding_pass(
                model, [item], timesteps, asked.seed, asked.batch_size, reducer=layers, on_progress=on_progress
            )
            maps = torch.stack([one.maps for one in passed])  # (S, layers, 2, h, w)
            names = layers.layers
        mean = maps.mean(dim=1)  # (S, 2, h, w)
        found = {Channel(self.name): mean[:, 0], Channel("end_token"): mean[:, 1]}
        return Answer(found | {Channel(self.name, layer): maps[:, i, 0] for i, layer in enumerate(names)})


class OpenVocabulary:
    """Maps of the finding as a concept beside the image's own phrase: it changes nothing in the pass that it looks at.

    Asked for an absent finding, the prompt stays the image's own: only the concept is another one.
    """

    name, slow = "concept", False

    def cost(self, timesteps: int) -> float:
        """A trajectory and one more forward pass a timestep."""
        return float(paths.cost(timesteps) + timesteps)

    def maps(
        self, model: LatentDiffusion, asked: Asked, timesteps: Sequence[int], on_progress: OnProgress | None = None
    ) -> Answer:
        """Channel ``concept``: (S, h, w)."""
        path = asked.trajectory(model, timesteps, asked.own, guidance_scale=1.0)
        concepts = encode_concepts(model, [asked.label.lower()])
        maps = concept_maps_of(model, path, concepts, asked.batch_size)  # (S, 1, h, w)
        _tell(on_progress, self.cost(len(timesteps)))
        return Answer({Channel(self.name): maps[:, 0]})


class DfCam:
    """DF-CAM: which places of the network's features carry what the text adds, summed over layers, and in each.

    Args:
        paper: as published: the sum of the output as the target, and both halves of the guidance.
    """

    name, slow = "df_cam", True

    def __init__(self, paper: bool = False) -> None:
        self.options, self.target = (CamOptions.paper(), Target("sum_eps")) if paper else (CamOptions(), Target())

    def cost(self, timesteps: int) -> float:
        """A trajectory, and a pass forward and backward a timestep."""
        return float(paths.cost(timesteps) + df_cam.cost(timesteps, self.options))

    def maps(
        self, model: LatentDiffusion, asked: Asked, timesteps: Sequence[int], on_progress: OnProgress | None = None
    ) -> Answer:
        """Channels ``df_cam`` (all layers, and each): (S, h, w)."""
        path = asked.trajectory(model, timesteps, asked.phrase, GUIDANCE)
        found = df_cam.df_cam(model, path, self.options, self.target)
        _tell(on_progress, self.cost(len(timesteps)))
        maps = {Channel(self.name): found.total}
        return Answer(maps | {Channel(self.name, layer): found.maps[:, i] for i, layer in enumerate(found.layers)})


class TokenRelevance:
    """Relevance: gradient-weighted attention rolled out, as the map of the finding's words and as shares of kinds of tokens.

    Args:
        paper: as published: the sum of the output as the target.
    """

    name, slow = "relevance", True

    def __init__(self, paper: bool = False) -> None:
        self.options = relevance.RelevanceOptions.paper() if paper else relevance.RelevanceOptions()
        self.target = Target("sum_eps") if paper else Target()

    def cost(self, timesteps: int) -> float:
        """A trajectory, and a pass forward and backward a timestep."""
        return float(paths.cost(timesteps) + relevance.cost(timesteps))

    def maps(
        self, model: LatentDiffusion, asked: Asked, timesteps: Sequence[int], on_progress: OnProgress | None = None
    ) -> Answer:
        """Channel ``relevance``: (S, h, w); shares of the roles of a report and of the kinds of tokens."""
        path, tokenizer = asked.trajectory(model, timesteps, asked.phrase, GUIDANCE), model.text_encoder.tokenizer
        found = relevance.relevance(model, path, asked.query.weights[None], self.options, self.target)
        _tell(on_progress, self.cost(len(timesteps)))
        kinds = {**report_roles(tokenizer, asked.phrase, asked.label), **token_kinds(tokenizer, asked.phrase)}
        shares = {name: (found.share * tokens).sum(dim=1).tolist() for name, tokens in kinds.items()}
        return Answer({Channel(self.name): found.maps[:, 0]}, shares)


class DfRise:
    """DF-RISE: which places a step's prediction is steady at when other parts of its input are masked.

    Args:
        paper: as published: 500 masks of single pixels, zeros in their place, x at the next timestep against an epsilon.
        prompt: look at what the prompt adds to the output instead of at the output.
    """

    slow = True

    def __init__(self, paper: bool = False, prompt: bool = False) -> None:
        self.name = "df_rise_prompt" if prompt else "df_rise"
        self.options = df_rise.PAPER if paper and not prompt else df_rise.FAST
        if prompt:
            self.options = replace(self.options, subject="prompt", masks=500 if paper else self.options.masks)

    def cost(self, timesteps: int) -> float:
        """A trajectory, and every mask at every timestep."""
        return float(paths.cost(timesteps) + df_rise.cost(self.options, timesteps, GUIDANCE))

    def maps(
        self, model: LatentDiffusion, asked: Asked, timesteps: Sequence[int], on_progress: OnProgress | None = None
    ) -> Answer:
        """Channel of the tool's name: (S, h, w)."""
        path = asked.trajectory(model, timesteps, asked.phrase, GUIDANCE)
        _tell(on_progress, paths.cost(len(timesteps)))
        options = replace(self.options, seed=asked.seed, batch_size=asked.batch_size)
        return Answer({Channel(self.name): df_rise.df_rise_of(model, [path], options, on_progress)[0]})


def _tell(on_progress: OnProgress | None, evaluations: float) -> None:
    if on_progress is not None:
        on_progress(int(evaluations))


#: Name -> what makes a tool, as it is safe or (True) as it was published.
TOOLS: Mapping[str, Callable[[bool], Tool]] = {
    "attention": lambda paper: Attention(),
    "concept": lambda paper: OpenVocabulary(),
    "df_cam": DfCam,
    "relevance": TokenRelevance,
    "df_rise": DfRise,
    "df_rise_prompt": lambda paper: DfRise(paper, prompt=True),
}


def build_tools(names: Sequence[str], paper: bool = False) -> list[Tool]:
    """The tools of these names, in their order.

    Args:
        paper: those that differ from the published ones as they were published.

    Raises:
        UserError: a name that there is not, twice the same, or none.
    """
    unknown = [name for name in names if name not in TOOLS]
    if unknown or not names or len(set(names)) != len(names):
        raise UserError(
            f"tools are {', '.join(names) or 'none'}: name one or several of {', '.join(TOOLS)}, each once."
        )
    return [TOOLS[name](paper) for name in names]
