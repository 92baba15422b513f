"""What ``lightning sample`` tells a model to draw: prompts, prototype activations of a prior, or nothing. Source: own."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError

if TYPE_CHECKING:
    from meddiff.models.latent_diffusion import LatentDiffusion
    from meddiff.models.patronus import Patronus
    from meddiff.models.prototype_prior import PrototypePrior
    from meddiff.models.sampling import SamplingOptions
    from meddiff.runs.opened import Opened

#: (texts, keys, seed=..., on_step=...) -> uint8 (B, H, W, 3)
Draw = Callable[..., NDArray[np.uint8]]


def prompts_for(run: "Opened", prompts: Sequence[str], prior: str | None) -> list[str]:
    """The prompts, one empty one for a model that draws without.

    Args:
        prior: run folder of a prior over prototype activations.

    Raises:
        UserError: prompts for a model that reads none, none for one that does, or a model that has not learnt to draw without
            being told anything.
    """
    model = run.model
    if prompts and not model.reads_text:
        raise UserError(
            "This model reads no text, so that prompts say nothing to it: leave them out, or give --prior RUN to draw from "
            "prototype activations."
        )
    if prompts or prior is not None:
        return list(prompts) or [""]
    if model.reads_text:
        raise UserError('No prompts: give --prompts "..." or --prompts_file FILE.')
    if run.facts.section("model")[1].get("prototype_dropout") == 0:
        raise UserError(
            "This model was always told its prototypes (prototype_dropout 0) and draws nothing without: give --prior RUN, "
            "a run of PrototypePriorModule, or look at `lightning evaluate prototypes`, which draws from held-out images' own."
        )
    return [""]


def prior_network(run: str, model: "Patronus") -> "PrototypePrior":
    """The prior that a run trained, in eval mode.

    Raises:
        UserError: no such run, a run of something else, or of another number of prototypes.
    """
    from meddiff.models.prototype_prior import PrototypePrior
    from meddiff.runs.open_run import open_run

    prior = getattr(open_run(run).module, "prior", None)
    if not isinstance(prior, PrototypePrior):
        raise UserError(f"--prior {run} is no run of PrototypePriorModule: train one with its folder as model.run.")
    if prior.number != model.m:
        raise UserError(
            f"--prior {run} draws {prior.number} activations and this model has {model.m} prototypes: take a prior of this run."
        )
    return prior.eval().requires_grad_(False)


def drawing_from(
    model: "LatentDiffusion", prior: str | None, schedule: str | None, sampling: "SamplingOptions"
) -> tuple[Draw, dict[str, object]]:
    """How images are drawn, and what of it they depend on beside the sampling; along a schedule others draw.

    Raises:
        UserError: a prior for a model without prototypes, or beside a schedule.
    """
    from meddiff.evaluation.provenance import weights_digest
    from meddiff.models.patronus import Patronus

    if prior is None:
        return partial(model.sample, options=sampling), {}
    if not isinstance(model, Patronus):
        raise UserError("--prior goes with a model that has prototypes: leave it out.")
    if schedule is not None:
        raise UserError("--prior and --schedule do not go together: leave one of them out.")
    network = prior_network(prior, model)

    def draw(
        texts: Sequence[str], keys: Sequence[str], seed: int, on_step: Callable[[int], None] | None = None
    ) -> NDArray[np.uint8]:
        activations = network.sample(keys, seed).to(model.device)  # (B, m)
        told = model.conditioning(activations, list(texts) if model.reads_text else None)
        return model.draw(told, keys, seed, sampling, on_step)

    return draw, {"prior": weights_digest(network)}
