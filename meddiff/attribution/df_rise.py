"""DF-RISE: where the prediction of a denoising step stays alike when parts of its input are masked.

The latent of a step is masked N times, the U-Net asked again, and its prediction compared with the unmasked one place by
place by SSIM's structure term; a place's value is the mean likeness there over the masks that kept it (Park, Ju & Lee 2024,
eq. 1-9; spec section B2). High is where the step needs little but the place itself. That is local steadiness and no
attribution from outputs to inputs: RISE proper (:mod:`meddiff.attribution.rise`) is that.

Where paper and published code compare x_{t-1} with an epsilon (``space: paper``), the default compares like with like. It takes
the noise: into x0 and x_{t-1} the masked input enters by itself, so that their likeness is in part that of the mask.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from meddiff.attribution.ddim import ddim_step, predicted_noise
from meddiff.attribution.guidance import Asked, Outputs, evaluations
from meddiff.attribution.masks import KINDS, Kind, mask
from meddiff.attribution.similarity import BORDERS, TERMS, Border, Term, similarity
from meddiff.attribution.substrates import address_noise, structureless
from meddiff.attribution.trajectory import Trajectory
from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, check_ranges
from meddiff.models.latent_diffusion import LatentDiffusion

Space = Literal["eps", "x0", "previous", "paper"]
Subject = Literal["output", "prompt"]
Normalise = Literal["masks", "paper"]
Fill = Literal["renoised", "zero"]
_CHOICES = {"kind": KINDS, "space": get_args(Space), "subject": get_args(Subject), "fill": get_args(Fill),
            "term": TERMS, "border": BORDERS, "normalise": get_args(Normalise)}  # fmt: skip


@dataclass(frozen=True)
class DfRiseOptions:
    """How maps are made; the defaults are the safe ones, :data:`PAPER` the published ones.

    Attributes:
        masks: how many, N.
        kind: grid (RISE's smooth cells) or iid (every latent pixel by itself, as published).
        cells: of a grid, along each axis.
        probability: that a cell or pixel is kept.
        fill: what stands in for masked latents: the mean level noised anew, or zero (as published).
        space: what is compared: the noise (eps), the clean estimate (x0), the latent that the step leads to (previous), or
            that latent of the unmasked step with the noise of the masked one (paper).
        subject: the guided output, or what the prompt adds to it (prompt: conditional less unconditional; the terms go without
            their constants, which would call it alike wherever the prompt adds nothing).
        term: of the likeness.
        window: side of its window in latent pixels, odd.
        sigma: of its window, in latent pixels.
        border: what the window meets outside: nothing (cut), or zeros (as published).
        normalise: by how often a place was kept (masks), or the plain sum, without what is negative, from 0 to 1 (paper).
        guidance_scale: of target and masked outputs; None takes the trajectory's.
        seed: of masks and fills.
        batch_size: rows that the U-Net gets at once; changes results by rounding only.
    """

    masks: int = 64
    kind: Kind = "grid"
    cells: int = 8
    probability: float = 0.5
    fill: Fill = "renoised"
    space: Space = "eps"
    subject: Subject = "output"
    term: Term = "structure"
    window: int = 15
    sigma: float = 1.5
    border: Border = "cut"
    normalise: Normalise = "masks"
    guidance_scale: float | None = None
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                told = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
                raise UserError(f"df_rise: {name} is {getattr(self, name)!r}; it must be {told}.")
        check_ranges("df_rise", self, masks=COUNT, cells=COUNT, probability=SHARE, window=COUNT, sigma=POSITIVE,
                     batch_size=COUNT, guidance_scale=NOT_NEGATIVE)  # fmt: skip
        if self.window % 2 == 0:
            raise UserError(f"df_rise: window is {self.window}; it must be odd, or it has no middle.")
        if self.subject == "prompt" and self.space == "paper":
            raise UserError("df_rise: subject prompt compares two of a kind: take space eps, x0 or previous.")


FAST = DfRiseOptions()
PAPER = DfRiseOptions(masks=500, kind="iid", fill="zero", space="paper", border="zero", normalise="paper",
                      guidance_scale=7.5)  # fmt: skip
PRESETS = {"fast": FAST, "paper": PAPER}


def cost(options: DfRiseOptions, steps: int, guidance_scale: float = 7.5) -> int:
    """Evaluations of the U-Net for the maps of one trajectory.

    Args:
        guidance_scale: of the trajectory, where the options name none.
    """
    scale = guidance_scale if options.guidance_scale is None else options.guidance_scale
    return steps * options.masks * _each(options, scale)


def df_rise(model: LatentDiffusion, trajectory: Trajectory, options: DfRiseOptions = FAST) -> Tensor:
    """Maps of every step, (S, h, w) float32 on the CPU; see :func:`df_rise_of`."""
    return df_rise_of(model, [trajectory], options)[0]


def df_rise_of(
    model: LatentDiffusion,
    trajectories: Sequence[Trajectory],
    options: DfRiseOptions = FAST,
    on_progress: Callable[[int], object] | None = None,
) -> list[Tensor]:
    """Maps of every step of several trajectories; masks, steps and images share batches.

    Args:
        model: in eval mode, the one the trajectories are of.
        on_progress: called with the evaluations just done.

    Returns:
        (S, h, w) float32 on the CPU of each.
    """
    sums = [torch.zeros(len(one), *one.noisy.shape[-2:], device=model.device) for one in trajectories]
    kept = [torch.zeros_like(one) for one in sums]
    for part in masked_likeness(model, trajectories, options, on_progress):
        for place, step, seen, alike in zip(part.images, part.steps, part.masks, part.alike, strict=True):
            sums[place][step] += seen * alike
            kept[place][step] += seen
    return [normalised(one, times, options.normalise).cpu() for one, times in zip(sums, kept, strict=True)]


def normalised(sums: Tensor, kept: Tensor, how: Normalise) -> Tensor:
    """Sums over masks (S, h, w) as a map; a place that no mask kept, and all of a flat published one, is 0."""
    if how == "masks":
        return torch.where(kept > 0, sums / kept.clamp(min=torch.finfo(kept.dtype).tiny), 0.0)
    positive = sums.relu()
    low, high = (getattr(positive, name)(dim=(-2, -1), keepdim=True) for name in ("amin", "amax"))
    return torch.where(high > low, (positive - low) / (high - low).clamp(min=torch.finfo(kept.dtype).tiny), 0.0)


class Likeness(NamedTuple):
    """What some masks did: images and steps (B,) as lists, masks and likeness (B, h, w) each."""

    images: list[int]
    steps: list[int]
    masks: Tensor
    alike: Tensor


def masked_likeness(
    model: LatentDiffusion,
    trajectories: Sequence[Trajectory],
    options: DfRiseOptions,
    on_progress: Callable[[int], object] | None = None,
) -> Iterator[Likeness]:
    """Ask the U-Net with every mask at every step of every trajectory, a batch at a time.

    A key's masks are the same at all its timesteps and under every model, so that these compare on equal terms; those of two
    keys are drawn apart, so that a mean over images has no pattern of one draw.
    """
    asked = Asked(model, [one.text for one in trajectories], options.batch_size)
    scales = [one.guidance_scale if options.guidance_scale is None else options.guidance_scale for one in trajectories]
    targets = [_target(model, one, options, scale) for one, scale in zip(trajectories, scales, strict=True)]
    for scale in dict.fromkeys(scales):
        chosen = [k for k, mine in enumerate(scales) if mine == scale]
        rows = [(k, s, n) for k in chosen for n in range(options.masks) for s in range(len(trajectories[k]))]
        size = max(1, options.batch_size // _each(options, scale))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield _ask(model, asked, trajectories, targets, part, options, scale)
            if on_progress is not None:
                on_progress(len(part) * _each(options, scale))


def _ask(
    model: LatentDiffusion,
    asked: Asked,
    trajectories: Sequence[Trajectory],
    targets: Sequence[Tensor],
    rows: Sequence[tuple[int, int, int]],
    options: DfRiseOptions,
    scale: float,
) -> Likeness:
    device = model.device
    height, width = trajectories[0].noisy.shape[-2:]
    paths = [trajectories[k] for k, _, _ in rows]

    def gathered(name: str) -> Tensor:
        return torch.stack([getattr(path, name)[s] for path, (_, s, _) in zip(paths, rows, strict=True)]).to(device)

    noisy, now, then = (gathered(name) for name in ("noisy", "timesteps", "previous"))  # (B, C, h, w), (B,), (B,)
    drawn = {
        (k, n): mask(
            options.kind, (height, width), options.probability, options.cells, options.seed, trajectories[k].key, n
        )
        for k, n in {(k, n) for k, _, n in rows}
    }
    seen = torch.stack([drawn[k, n] for k, _, n in rows]).to(device)  # (B, h, w)
    keep = seen.unsqueeze(1)  # (B, 1, h, w)
    masked = noisy * keep
    if options.fill == "renoised":
        noise = torch.stack(
            [
                address_noise(tuple(noisy.shape[1:]), options.seed, path.key, int(path.timesteps[s]), n)
                for path, (_, s, n) in zip(paths, rows, strict=True)
            ]
        ).to(device)
        masked = masked + structureless(model.noise_schedule, gathered("clean"), now, noise) * (1 - keep)
    texts = torch.tensor([k for k, _, _ in rows])
    if options.subject == "prompt":
        outputs = asked(masked, now, texts)
    else:
        guided = asked.guided(masked, now, texts, scale)
        outputs = Outputs(guided, guided)
    found = _seen_in(
        model, outputs, masked, now, then, options.subject, "eps" if options.space == "paper" else options.space
    )
    target = torch.stack([targets[k][s] for k, s, _ in rows])  # (B, C, h, w)
    alike = similarity(
        target,
        found,
        options.term,
        options.window,
        options.sigma,
        options.border,
        constants=options.subject == "output",
    )  # (B, h, w)
    return Likeness([k for k, _, _ in rows], [s for _, s, _ in rows], seen, alike)


def _target(model: LatentDiffusion, path: Trajectory, options: DfRiseOptions, scale: float) -> Tensor:
    """What the unmasked step gives, (S, C, h, w) on the model's device, from the saved outputs alone."""
    noisy, now, then, unconditional, conditional = (
        getattr(path, name).to(model.device)
        for name in ("noisy", "timesteps", "previous", "unconditional", "conditional")
    )
    outputs = Outputs(unconditional, conditional)
    if options.subject == "output":
        outputs = Outputs(outputs.guided(scale), outputs.guided(scale))
    space: Space = "previous" if options.space == "paper" else options.space
    return _seen_in(model, outputs, noisy, now, then, options.subject, space)


def _seen_in(
    model: LatentDiffusion, outputs: Outputs, noisy: Tensor, now: Tensor, then: Tensor, subject: Subject, space: Space
) -> Tensor:
    """Raw outputs (B, C, h, w) at ``noisy`` in a space; of the prompt, what conditional outputs have beyond the others."""

    def seen(output: Tensor) -> Tensor:
        if space == "eps":
            return predicted_noise(model.noise_schedule, output, noisy, now)
        if space == "x0":
            return model.noise_schedule.predicted_x0(noisy, output, now)
        return ddim_step(model.noise_schedule, output, noisy, now, then)

    return seen(outputs.conditional) - seen(outputs.unconditional) if subject == "prompt" else seen(outputs.conditional)


def _each(options: DfRiseOptions, scale: float) -> int:
    return 2 if options.subject == "prompt" else evaluations(scale)
