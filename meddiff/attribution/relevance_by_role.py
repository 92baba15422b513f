"""Relevance by role, added up over steps and prompts, beside the published sums; and what goes to tokens that mean nothing.

The question is whether a schedule moves weight from the subject of a scene to its object. The published sums are of the min-max
of 100 sentences at 30 steps (Stable Diffusion, the authors' notebooks; Park et al. 2024, spec section B5),
``published/relevance_by_role.csv``. A role of several tokens counts as their mean, so each sum is at most prompts x steps;
``per_step`` divides by it and compares across numbers of prompts and steps.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.attribution import relevance as tool
from meddiff.attribution import trajectory
from meddiff.attribution.cam_targets import Target
from meddiff.attribution.relevance import Relevance, RelevanceOptions, relevance
from meddiff.attribution.token_roles import SCENE, of_words
from meddiff.attribution.trajectory import generate
from meddiff.models.latent_diffusion import LatentDiffusion

TABLE = Path(__file__).parent / "published" / "relevance_by_role.csv"


class Prompt(NamedTuple):
    """A prompt and what its tokens are there for, of :mod:`meddiff.attribution.token_roles`: role -> (L,) bool."""

    text: str
    roles: Mapping[str, Tensor]


@dataclass(frozen=True)
class RoleSum:
    """One role under one schedule.

    Attributes:
        schedule: its name in :mod:`meddiff.attribution.schedules`.
        role: of the prompts.
        total: the sum over prompts and steps.
        number: prompts x steps that have the role.
        source: ``measured``, or the published run.
    """

    schedule: str
    role: str
    total: float
    number: int
    source: str = "measured"

    @property
    def per_step(self) -> float:
        """From 0 to 1; NaN where no prompt has the role."""
        return self.total / self.number if self.number else float("nan")


def by_role(found: Relevance, roles: Mapping[str, Tensor], words: Tensor) -> dict[str, Tensor]:
    """Role -> (S,), the mean min-max of its tokens at each step; NaN where the text lacks it or has one word token.

    Args:
        roles: role -> (L,) bool, of :mod:`meddiff.attribution.token_roles`.
        words: (L,) bool, the tokens among which 0 and 1 are given (``token_kinds(...)["words"]``).
    """
    values = found.minmax(words)  # (S, L)
    nothing = torch.full((len(values),), torch.nan)
    return {role: values[:, mask].mean(dim=1) if bool(mask.any()) else nothing for role, mask in roles.items()}


def shares(found: Relevance, kinds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kind (``function``, ``start``, ``end``, ``padding``, a role) -> (S,), its tokens' part of the relevance of all tokens."""
    return {kind: found.share[:, mask].sum(dim=1) for kind, mask in kinds.items()}


def added_up(schedule: str, prompts: Sequence[Mapping[str, Tensor]]) -> list[RoleSum]:
    """The sums over prompts and steps of what :func:`by_role` gives, steps that are NaN left out."""
    rows = []
    for role in dict.fromkeys(role for prompt in prompts for role in prompt):
        values = torch.cat([prompt[role] for prompt in prompts if role in prompt])
        there = values[~values.isnan()]
        rows.append(RoleSum(schedule, role, float(there.double().sum()), len(there)))
    return rows


@cache
def published() -> tuple[RoleSum, ...]:
    """The published sums of scenes, of both runs."""
    with TABLE.open(newline="", encoding="utf-8") as stream:
        return tuple(
            RoleSum(
                row["schedule"],
                role,
                float(row[role]),
                int(row["sentences"]) * int(row["steps"]),
                f"published, {row['run']} run",
            )
            for row in csv.DictReader(stream)
            for role in SCENE
        )


def cost(prompts: int, schedules: Mapping[str, Sequence[int]]) -> int:
    """Evaluations of the U-Net that :func:`sums_by_role` takes."""
    return prompts * sum(trajectory.cost(len(times)) + tool.cost(len(times)) for times in schedules.values())


def sums_by_role(
    model: LatentDiffusion,
    prompts: Sequence[Prompt],
    schedules: Mapping[str, Sequence[int]],
    seed: int = 0,
    guidance_scale: float = 7.5,
    options: RelevanceOptions = RelevanceOptions(),  # noqa: B008 (frozen dataclass)
    target: Target = Target(),  # noqa: B008 (frozen dataclass)
    on_progress: Callable[[int], object] | None = None,
) -> list[RoleSum]:
    """Draw each prompt along each schedule and add up the relevance of its roles.

    Every schedule starts from the same noise, which hangs on (seed, text). :func:`published` has what to put beside scenes.

    Args:
        model: in eval mode.
        schedules: name -> timesteps, of :mod:`meddiff.attribution.schedules`.
        on_progress: called after each prompt with the evaluations just done.

    Raises:
        UserError: a schedule or guidance that cannot be.
    """
    rows = []
    for name, times in schedules.items():
        found = []
        for prompt in prompts:  # one at a time: a hundred paths of Stable Diffusion's size are a gigabyte
            path = generate(model, [prompt.text], times, [prompt.text], seed, guidance_scale)[0]
            words = of_words(model.text_encoder.tokenizer, prompt.text, lambda word: True)
            nothing = torch.zeros(0, len(words))
            found.append(by_role(relevance(model, path, nothing, options, target), prompt.roles, words))
            if on_progress is not None:
                on_progress(trajectory.cost(len(times)) + tool.cost(len(times)))
        rows += added_up(name, found)
    return rows
