"""A denoising path, computed once and saved: every tool reads it, none runs it again.

Two kinds: :func:`generate` follows a prompt from noise to an image, each step from where the last one led. :func:`renoised`
takes a real image's latents and noises them to each timestep anew, as the grounding pass does and with its noise; these
steps do not hang on one another, and maps of them can be scored on boxes. Source: own (spec section B8).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from meddiff.attribution.ddim import ddim_step
from meddiff.attribution.grounding_pass import item_noise
from meddiff.attribution.guidance import Asked, guided
from meddiff.attribution.schedules import check_timesteps, following
from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.common.ranges import NOT_NEGATIVE
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.sampling import initial_noise

#: Of the file's form.
VERSION = "1"
FORM = "denoising trajectory"
OnProgress = Callable[[int], object]


class Item(Protocol):
    """A real image and a text about it; a :class:`meddiff.attribution.grounding_pass.GroundingItem` is one."""

    key: str
    latents: Tensor
    text: str


@dataclass(frozen=True)
class Trajectory:
    """What happened at each of S timesteps to one image; tensors are float32 on the CPU, timesteps int64.

    Attributes:
        key: of the image or prompt.
        text: the prompt.
        guidance_scale: of ``clean`` and ``after``.
        timesteps: (S,), strictly decreasing.
        previous: (S,) where each step leads; -1 is the clean end.
        noisy: (S, C, h, w), the U-Net's input x_t.
        unconditional: (S, C, h, w), its raw output (epsilon or v) with the empty text.
        conditional: (S, C, h, w), with the text.
        clean: (S, C, h, w), the x0 that the guided output stands for.
        after: (S, C, h, w), x at ``previous``, by DDIM.
    """

    key: str
    text: str
    guidance_scale: float
    timesteps: Tensor
    previous: Tensor
    noisy: Tensor
    unconditional: Tensor
    conditional: Tensor
    clean: Tensor
    after: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def output(self) -> Tensor:
        """The guided output, (S, C, h, w)."""
        return guided(self.unconditional, self.conditional, self.guidance_scale)

    def at(self, steps: Sequence[int]) -> "Trajectory":
        """The steps at these places alone, in that order; each keeps where it led."""
        chosen = torch.tensor(list(steps), dtype=torch.long)
        return replace(self, **{name: getattr(self, name)[chosen] for name in TENSORS})

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all; facts stand in its header as text."""
        from safetensors.torch import save

        tensors = {name: getattr(self, name).clone().contiguous() for name in TENSORS}  # no shared memory
        facts = {"key": self.key, "text": self.text, "guidance_scale": self.guidance_scale}
        with atomic_open(path) as stream:
            stream.write(save(tensors, {"form": FORM, "version": VERSION, "facts": json.dumps(facts)}))


TENSORS = tuple(field.name for field in fields(Trajectory) if field.name not in ("key", "text", "guidance_scale"))


def load(path: Path) -> Trajectory:
    """What :meth:`Trajectory.save` wrote; nothing in the file is executed.

    Raises:
        UserError: no such file, a damaged one, or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            header = stored.metadata() or {}
            # the tensors' names are the file's own: none is asked for that is not there
            tensors = {name: stored.get_tensor(name) for name in TENSORS if name in set(stored.keys())}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} holds no trajectory that can be read ({error}): make it again.") from error
    if header.get("form") != FORM or header.get("version") != VERSION or len(tensors) != len(TENSORS):
        raise UserError(f"{path} is no trajectory of this version: make it again.")
    try:
        facts = json.loads(header.get("facts", ""))
        found = Trajectory(str(facts["key"]), str(facts["text"]), float(facts["guidance_scale"]), **tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is a damaged trajectory ({type(error).__name__}): make it again.") from error
    _check_stored(found, path)
    return found


def _check_stored(found: Trajectory, path: Path) -> None:
    steps, shape = len(found.timesteps), found.noisy.shape
    whole = all(getattr(found, name).shape == (steps,) for name in ("timesteps", "previous"))
    images = all(getattr(found, name).shape == shape for name in TENSORS[2:])
    types = all(
        getattr(found, name).dtype == (torch.int64 if k < 2 else torch.float32) for k, name in enumerate(TENSORS)
    )
    if not (whole and images and types and len(shape) == 4 and shape[0] == steps > 0):
        raise UserError(f"{path} is a damaged trajectory (its tensors do not fit together): make it again.")


def cost(steps: int) -> int:
    """Evaluations of the U-Net that one trajectory takes: with and without the text at each step."""
    return 2 * steps


def generate(
    model: LatentDiffusion,
    texts: Sequence[str],
    timesteps: Sequence[int],
    keys: Sequence[str],
    seed: int = 0,
    guidance_scale: float = 7.5,
    batch_size: int = 64,
    on_progress: OnProgress | None = None,
) -> list[Trajectory]:
    """The path of each prompt from noise to an image, by DDIM along any list of timesteps.

    Args:
        model: in eval mode; its scheduler takes no part.
        timesteps: from :mod:`meddiff.attribution.schedules`.
        keys: one a text; the noise hangs on (seed, key) alone and is that of :meth:`LatentDiffusion.sample`.
        batch_size: rows that the U-Net gets at once; changes results by rounding only.
        on_progress: called after each step with the evaluations just done.

    Raises:
        UserError: a list or guidance that cannot be, or fewer keys than texts.
    """
    _check(model, timesteps, guidance_scale)
    if len(keys) != len(texts):
        raise UserError(f"{len(texts)} texts and {len(keys)} keys: give one key a text.")
    if not texts:
        return []
    asked, schedule, times = Asked(model, texts, batch_size), model.noise_schedule, list(timesteps)
    latents = initial_noise(seed, keys, model.latent_shape).to(model.device)  # (B, C, h, w)
    rows, steps = torch.arange(len(texts)), []
    for timestep, previous in zip(times, following(times), strict=True):
        now = torch.full((len(texts),), timestep, device=model.device)
        outputs = asked(latents, now, rows)
        step = _Step(latents, *outputs, *_leads(schedule, outputs.guided(guidance_scale), latents, now, previous))
        latents = step.after
        steps.append(step.cpu())
        if on_progress is not None:
            on_progress(2 * len(texts))
    return [
        _trajectory(keys[k], texts[k], guidance_scale, times, following(times), [step.row(k) for step in steps])
        for k in range(len(texts))
    ]


def renoised(
    model: LatentDiffusion,
    items: Sequence[Item],
    timesteps: Sequence[int],
    seed: int = 0,
    guidance_scale: float = 7.5,
    batch_size: int = 64,
    previous: Sequence[int] | None = None,
    on_progress: OnProgress | None = None,
) -> list[Trajectory]:
    """Real images noised to each timestep, with the grounding pass's noise; the steps do not hang on one another.

    Args:
        model: in eval mode.
        items: latents (C, h, w), scaled.
        previous: where each step leads; None: to the next of the list, the last to the clean end.
        batch_size: rows that the U-Net gets at once; changes results by rounding only.
        on_progress: called after each few images with the evaluations just done.

    Raises:
        UserError: a list or guidance that cannot be.
    """
    _check(model, timesteps, guidance_scale)
    times, leads = list(timesteps), following(timesteps) if previous is None else list(previous)
    if len(leads) != len(times) or any(not -1 <= then < now for now, then in zip(times, leads, strict=True)):
        raise UserError("previous: give one earlier timestep (or -1, the clean end) for each of the timesteps.")
    if not items:
        return []
    asked, schedule = Asked(model, [item.text for item in items], batch_size), model.noise_schedule
    together, found = max(1, batch_size // (2 * len(times))), []
    for start in range(0, len(items), together):
        part = items[start : start + together]
        pairs = [(item, t) for item in part for t in times]
        now, then = (torch.tensor(list(places) * len(part), device=model.device) for places in (times, leads))  # (B,)
        noise = torch.stack([item_noise(seed, item.key, t, item.latents.shape) for item, t in pairs])
        latents = torch.stack([item.latents.float() for item, _ in pairs])  # (B, C, h, w)
        noisy = schedule.add_noise(latents.to(model.device), noise.to(model.device), now)
        outputs = asked(noisy, now, torch.arange(start, start + len(part)).repeat_interleave(len(times)))
        step = _Step(noisy, *outputs, *_leads(schedule, outputs.guided(guidance_scale), noisy, now, then)).cpu()
        for place, item in enumerate(part):
            rows = [step.row(place * len(times) + k) for k in range(len(times))]
            found.append(_trajectory(item.key, item.text, guidance_scale, times, leads, rows))
        if on_progress is not None:
            on_progress(2 * len(pairs))
    return found


@dataclass(frozen=True)
class _Step:
    """(B, C, h, w) each, or (C, h, w) of one row; in the order of :data:`TENSORS`."""

    noisy: Tensor
    unconditional: Tensor
    conditional: Tensor
    clean: Tensor
    after: Tensor

    def cpu(self) -> "_Step":
        return _Step(*(getattr(self, field.name).cpu() for field in fields(self)))

    def row(self, place: int) -> "_Step":
        return _Step(*(getattr(self, field.name)[place] for field in fields(self)))


def _leads(
    schedule: NoiseSchedule, output: Tensor, noisy: Tensor, now: Tensor, previous: int | Tensor
) -> tuple[Tensor, Tensor]:
    return schedule.predicted_x0(noisy, output, now), ddim_step(schedule, output, noisy, now, previous)


def _trajectory(
    key: str, text: str, guidance_scale: float, timesteps: list[int], previous: list[int], steps: list[_Step]
) -> Trajectory:
    stacked = [torch.stack([getattr(step, field.name) for step in steps]) for field in fields(_Step)]
    return Trajectory(key, text, guidance_scale, torch.tensor(timesteps), torch.tensor(previous), *stacked)


def _check(model: LatentDiffusion, timesteps: Sequence[int], guidance_scale: float) -> None:
    check_timesteps(timesteps, len(model.noise_schedule.alphas_cumprod))
    if not NOT_NEGATIVE.holds(guidance_scale):
        raise UserError(f"guidance_scale is {guidance_scale}; it must {NOT_NEGATIVE}.")
