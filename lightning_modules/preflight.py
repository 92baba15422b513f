"""What can be known to be wrong before weights are read or processes start."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, cast

from lightning_modules.patronus_preflight import prototype_problems
from meddiff.common.errors import UserError
from meddiff.common.places import locate
from meddiff.common.ranges import (
    COUNT,
    COUNT_OR_NONE,
    DECAY,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Range,
    not_finite,
    range_problems,
)
from meddiff.models.schedule_config import PREDICTIONS
from meddiff.models.weights.schedule_file import schedule_problems
from meddiff.models.weights.sources import HUB_PREFIX, Part, Source, missing_part, read_config

if TYPE_CHECKING:  # the command's quick check imports this module before anything heavy
    from meddiff.shards.manifest import Manifest

#: What the numbers of :class:`LatentDiffusionModule` may be.
RANGES: dict[str, Range] = {
    "learning_rate": NOT_NEGATIVE,
    "text_encoder_learning_rate": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "warmup_steps": COUNT_OR_NONE,
    "min_snr_gamma": POSITIVE,
    "caption_dropout": SHARE,
    "ema_decay": DECAY,
    "stop_after_skipped_steps": COUNT,
}
#: ... and of how it draws.
SAMPLING: dict[str, Range] = {"steps": Range(1, 1000, whole=True), "guidance_scale": NOT_NEGATIVE}
#: ... and of what makes it faster.
SPEED: dict[str, Range] = {"text_cache": COUNT_OR_NONE, "ema_every": COUNT}
IDLE_RATE = (
    "text_encoder_learning_rate is {} but the text encoder is frozen: set freeze_text_encoder to false, or drop the learning "
    "rate."
)
PARTS: tuple[Part, ...] = ("unet", "text_encoder", "vae")


def missing_weights(init_args: Mapping[str, object]) -> list[str]:
    """One sentence for each part of the model whose files are not there; parts of one folder share a sentence."""
    problems: dict[str, str] = {}
    for part in PARTS:
        source = cast(Source | None, init_args.get(part))
        problem = missing_part(source, part) if source is not None else None
        if problem:
            where = source if isinstance(source, str) else part
            # One `hf download` brings all three parts: do not say it three times.
            problems.setdefault(where, problem)
    return list(problems.values())


def wrong_values(init_args: Mapping[str, object]) -> list[str]:
    """One sentence for each number that is not finite, out of its range, or of no use."""
    problems = range_problems(init_args, RANGES)
    for group, rules in (("sampling", SAMPLING), ("speed", SPEED)):
        given = init_args.get(group)
        if isinstance(given, Mapping):
            problems += range_problems(given, rules, f"{group}.")
    for part in ("unet", "text_encoder"):
        problems += not_finite(init_args.get(part), part)
    return problems + idle_rate(init_args)


def misfits(init_args: Mapping[str, object]) -> list[str]:
    """One sentence for each part whose weights do not fit its config, by names, shapes and types; reads no values."""
    from meddiff.models import backbones
    from meddiff.models.text import build

    source = cast(Mapping[str, Source | None], init_args)
    checks: list[str | None] = []
    for part in ("unet", "vae"):
        local = source.get(part)
        if local is not None and not (isinstance(local, str) and local.startswith(HUB_PREFIX)):
            checks.append(backbones.misfit(local, cast(Literal["unet", "vae"], part)))
    tower = source.get("text_encoder")
    if tower is not None and not (isinstance(tower, str) and tower.startswith(HUB_PREFIX)):
        checks.append(build.misfit(tower))
    return [problem for problem in checks if problem]


def quick_problems(init_args: Mapping[str, object]) -> list[str]:
    """What is certainly wrong, known without torch."""
    return wrong_values(init_args) + missing_weights(init_args) + schedule_problems(init_args)


def idle_rate(init_args: Mapping[str, object]) -> list[str]:
    """A sentence where the text tower has a learning rate and does not learn."""
    rate = init_args.get("text_encoder_learning_rate")
    if rate is None or not init_args.get("freeze_text_encoder", True) or init_args.get("text_encoder") is None:
        return []
    return [IDLE_RATE.format(rate)]


def prediction_problem(init_args: Mapping[str, object]) -> list[str]:
    """A sentence when the U-Net's folder says it was trained to predict something else than the model is told to."""
    source, told = init_args.get("unet"), init_args.get("prediction_type", "epsilon")
    if not isinstance(source, str) or source.startswith(HUB_PREFIX):
        return []
    file = locate(source) / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        return []
    try:
        there = read_config(file.parent, file.name).get("prediction_type", "epsilon")
    except UserError as error:
        return [] if init_args.get("noise_schedule") is None else [str(error)]  # schedule_problems has said it
    if there == told or there not in PREDICTIONS:  # here, too
        return []
    return [
        f"unet: {source} was trained with prediction_type {there}, the model says {told}: set prediction_type: {there}."
    ]


def check_manifest(manifest: "Manifest", init_args: Mapping[str, object]) -> list[str]:
    """Sentences that say where the shards and the model disagree (empty when they fit).

    Args:
        manifest: of the shards, ``meddiff.shards.manifest.Manifest``.
        init_args: the model's ``unet`` and ``vae`` sources are read; the VAE's weights are hashed.
    """
    from meddiff.models.backbones import vae_identity
    from meddiff.models.weights.stored import part_config

    unet = part_config(cast(Source, init_args["unet"]), "unet")
    size, channels = unet.get("sample_size"), unet.get("in_channels", 4)
    height, width = (size, size) if isinstance(size, int) else (size or (None, None))
    problems = []
    try:
        if height is not None and width is not None:
            manifest.check(latent_shape=(channels, height, width))
        if isinstance(vae := init_args.get("vae"), str | dict):
            manifest.check(vae_sha256=vae_identity(vae, manifest.vae["sha256"])["sha256"])
    except UserError as error:
        problems.append(str(error))
    return problems


#: Name of a class of this room -> its quick check; a class without one is left to the full check.
QUICK: dict[str, Callable[[Mapping[str, object]], list[str]]] = {
    "LatentDiffusionModule": quick_problems,
    "PatronusModule": lambda init_args: quick_problems(init_args) + prototype_problems(init_args),
}
