"""``lightning doctor --plan``: what a configuration takes on given GPUs, before anybody waits for them. Source: own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from callbacks.evaluation import evaluation_share
from callbacks.throughput import PEAKS
from datamodules.stream import accumulation_for, check_batch_size
from meddiff.cli.arguments import read_yaml, with_bases
from meddiff.cli.plan_numbers import BATCHES, GIB, Training
from meddiff.cli.trainer_options import cuts_weights
from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.common.places import locate

if TYPE_CHECKING:
    from meddiff.models.prototype_options import PrototypeOptions
    from meddiff.models.weights.sources import Source

#: Dense bf16 peak in TFLOP/s that a plan assumes, by the GiB of a GPU: those of an A100, an H100 and an H200.
A100, H100 = PEAKS["A100"] / 1e12, PEAKS["H100"] / 1e12
#: Share of the peak that it assumes: what the best open training of this U-Net reaches on A100s is 28 %, on H200s 36 %.
SHARE = 0.28

Section = Mapping[str, object]


@dataclass(frozen=True)
class Machines:
    """``16x80``: so many GPUs of so many GiB."""

    gpus: int
    memory: int

    @classmethod
    def of(cls, text: str) -> "Machines":
        """Read ``16x80``.

        Raises:
            UserError: it says something else.
        """
        found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,3})", text)
        if found is None:
            raise UserError(f"--gpus is {text!r}: say number x GiB, e.g. 16x80 or 1x24.")
        return cls(int(found[1]), int(found[2]))


def merged(files: Sequence[str]) -> dict[str, object]:
    """Configs over one another and over their bases, and ``${PLACE}`` by what stands there, as ``fit`` reads them.

    Raises:
        UserError: one cannot be read, or refers to a place that is not there.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config: dict[str, object] = {}
    for file in (one for given in files for one in with_bases(given)):
        config = over(config, read_yaml(file))
    try:
        return cast("dict[str, object]", OmegaConf.to_container(OmegaConf.create(config), resolve=True))
    except OmegaConfBaseException as error:
        why = " ".join(str(error).split())
        raise UserError(f"{files[-1]} refers to a place that is not there: {why}") from error


def over(below: Section, above: Section) -> dict[str, object]:
    """``above`` on ``below``, section by section."""
    both = dict(below)
    for name, value in above.items():
        old = both.get(name)
        both[name] = over(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return both


def section(config: Section, *names: str) -> Section:
    """A section of a section; empty where there is none."""
    for name in names:
        found = config.get(name)
        config = found if isinstance(found, Mapping) else {}
    return config


def whole(values: Section, name: str, default: int) -> int:
    """A whole number of a section.

    Raises:
        UserError: it is something else.
    """
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} is {value!r}; a plan needs a whole number of 1 or more.")
    return value


def plan(files: Sequence[str], machines: Machines, peak: float | None, share: float | None) -> str:
    """The plan as text.

    Args:
        files: configs of ``lightning fit``, later ones over earlier ones.
        peak: TFLOP/s of a GPU; None takes that of an A100 up to 80 GiB and of an H100 above.
        share: of the peak that is reached; None takes :data:`SHARE`.

    Raises:
        UserError: a config cannot be read, trains no latent diffusion model, or its batch cannot be shared by the GPUs.
    """
    from meddiff.models.footprint import STABLE_DIFFUSION_2, Precision, footprint
    from meddiff.models.weights.sources import missing_part

    config = merged(files)
    model, trainer, data = (
        section(config, *names) for names in (("model", "init_args"), ("trainer",), ("data", "init_args"))
    )
    told = prototypes_of(config)
    if "unet" not in model or ("text_encoder" not in model and told is None):
        raise UserError(f"{files[-1]} trains no latent diffusion model (no model.init_args.unet): name one that does.")
    sources: list[Source | None] = [cast("Source", model["unet"]), cast("Source | None", model.get("text_encoder"))]
    absent: list[str] = []
    for place, (source, part) in enumerate(zip(sources, ("unet", "text_encoder"), strict=True)):
        if source is not None and missing_part(source, part):  # type: ignore[arg-type]  # literals
            absent.append(str(source))
            sources[place] = STABLE_DIFFUSION_2[place]
    precision = str(trainer.get("precision", "32"))
    kind: Precision = "bf16" if precision.startswith("bf16") else "16" if precision.startswith("16") else "32"
    training = Training(
        footprint(cast("Source", sources[0]), sources[1], kind, prototypes=told),
        learnable=model.get("freeze_text_encoder") is False,
        average=model.get("ema_decay", 0.9999) is not None,
        half=kind != "32",
        gpus=machines.gpus,
        **shared_how(trainer.get("strategy")),
    )
    batch, steps = whole(data, "batch_size", 256), whole(trainer, "max_steps", 1)
    accumulate = whole(trainer, "accumulate_grad_batches", 1)
    if data.get("max_batch_per_device") is not None:
        accumulate = accumulation_for(batch, machines.gpus, whole(data, "max_batch_per_device", 1))
    each = check_batch_size(batch, machines.gpus, accumulate)
    checkpointing = section(model, "speed").get("activation_checkpointing", "none") != "none"
    peak = peak or (A100 if machines.memory <= 80 else H100)
    lines = [f"plan of {' + '.join(map(str, files))} on {machines.gpus} GPUs of {machines.memory} GiB", ""]
    lines += [f"not here: {one}; planned with Stable Diffusion 2's sizes" for one in dict.fromkeys(absent)]
    lines += of_model(training)
    lines += of_memory(training, machines, each, checkpointing, accumulate)
    lines += of_time(config, training, batch * steps, peak, share or SHARE, checkpointing)
    lines += of_disk(config, training, batch * steps)
    return "\n".join(terminal(line) for line in lines)


def prototypes_of(config: Mapping[str, object]) -> "PrototypeOptions | None":
    """What a config says of prototypes; None where it trains a model without.

    Raises:
        UserError: names that prototypes do not have.
    """
    if not str(section(config, "model").get("class_path")).endswith("PatronusModule"):
        return None
    from meddiff.models.prototype_options import PrototypeOptions

    told = section(config, "model", "init_args", "prototypes")
    try:
        return PrototypeOptions(**told)  # type: ignore[arg-type]  # checked where it is built
    except TypeError as error:
        raise UserError(f"model.init_args.prototypes: {error}.") from error


def shared_how(strategy: object) -> dict[str, bool]:
    """Of ``trainer.strategy``: whether what trains is shared among GPUs, and whether DDP copies the gradients."""
    init = section(strategy, "init_args") if isinstance(strategy, Mapping) else {}
    sharded = cuts_weights(strategy.get("class_path") if isinstance(strategy, Mapping) else strategy)
    return {"sharded": sharded, "buckets": not sharded and not init.get("gradient_as_bucket_view", False)}


def of_model(training: Training) -> list[str]:
    """Parameters and FLOPs."""
    found = training.footprint
    tower = "trained" if training.learnable else "frozen"
    return [
        f"model     U-Net {found.unet / 1e6:,.1f} M parameters, text tower {found.text / 1e6:,.1f} M ({tower})",
        f"computing {training.flops() / 1e9:,.1f} GFLOP an image: U-Net {found.unet_flops / 1e9:,.1f} and tower "
        f"{found.text_flops / 1e9:,.1f} a forward pass",
        "",
    ]


def of_memory(training: Training, machines: Machines, each: int, checkpointing: bool, accumulate: int) -> list[str]:
    """What fits on a GPU, by images a GPU; and what this configuration does."""
    fixed = training.fixed()
    parts = ", ".join(f"{name} {value / GIB:.1f}" for name, value in fixed.items())
    lines = [
        f"memory    of each GPU, computed: {sum(fixed.values()) / GIB:.1f} GiB whatever the batch ({parts})",
        f"          and an image {training.image(False) / GIB:.2f} GiB, with activation checkpointing "
        f"{training.image(True) / GIB:.2f}",
        "",
        "          images a GPU   activations kept   computed again",
    ]
    for batch in sorted({*BATCHES, each}):
        cells = []
        for again in (False, True):
            need = training.memory(batch, again) / GIB
            cells.append(f"{need:8.1f} GiB {'    ' if need <= machines.memory else 'no  '}")
        lines.append(
            f"          {batch:>12}   {cells[0]:>16}   {cells[1]:>14}{'  <- this config' if batch == each else ''}"
        )
    most = [training.largest(machines.memory * GIB, again) for again in (False, True)]
    lines += ["", f"          most a GPU holds: {most[0]} images, with activation checkpointing {most[1]}"]
    if training.memory(each, checkpointing) / GIB > machines.memory:
        lines.append(f"          this config does NOT fit: {advice(training, machines, each * accumulate, most)}")
    return [*lines, ""]


def advice(training: Training, machines: Machines, images: int, most: list[int]) -> str:
    """How the same batch fits.

    Args:
        images: of one GPU in one optimiser step; most: that fit at once, without and with checkpointing.
    """
    ways = []
    if most[1] >= images:
        ways.append("set model.init_args.speed.activation_checkpointing to unet")
    pieces = next((n for n in range(1, images + 1) if images % n == 0 and images // n <= most[0]), None)
    if pieces is not None and pieces > 1:
        ways.append(f"set data.init_args.max_batch_per_device to {images // pieces}")
    if not training.sharded and machines.gpus > 1:
        ways.append("share the weights with configs/strategy/fsdp2_16.yaml")
    return ", or ".join(ways) or "take larger GPUs"


def of_time(
    config: Section, training: Training, images: int, peak: float, share: float, checkpointing: bool
) -> list[str]:
    """Images a second and hours, with the assumptions they stand on."""
    rate = training.images_per_second(peak * 1e12, share, checkpointing)
    hours = images / rate / 3600
    costs = {name: evaluation_cost(section(config, name), images) for name in ("grounding", "coco", "fidelity")}
    named = ", ".join(f"{name} {100 * cost:.1f} %" for name, cost in costs.items() if cost)
    evaluating = sum(costs.values())
    return [
        f"time      {rate:,.0f} images/s at {100 * share:.0f} % of {peak:g} TFLOP/s a GPU (--mfu, --peak_tflops; not measured)",
        f"          {images:,} images: {hours:,.1f} h of training; evaluations on top: {named or 'none counted'} of it; in all "
        f"{hours * (1 + evaluating):,.1f} h",
        "",
    ]


def evaluation_cost(options: Section, images: int) -> float:
    """Computing of one measurement as a share of training's; 0 where it is off or has no number of samples."""
    every, samples = options.get("every_n_images"), options.get("samples", options.get("captioned"))
    if not isinstance(every, int) or not isinstance(samples, int):
        return 0.0
    sampling = section(options, "sampling")
    # guided: two passes a step
    passes = 2 * whole(sampling, "steps", 50) if sampling else whole(options, "timesteps", 40)
    return evaluation_share(float(samples * passes), every, images)


def of_disk(config: Section, training: Training, images: int) -> list[str]:
    """Checkpoints, and the shards where they are."""
    every = section(config, "checkpoint").get("every_n_images")
    kept = images // every if isinstance(every, int) and every > 0 else 1
    kept = max(1, kept) if section(config, "checkpoint").get("keep_all", True) else 1
    each = training.checkpoint_bytes() / 1e9
    lines = [
        f"disk      {kept} checkpoints of {each:.1f} GB: {kept * each:.0f} GB, and {each:.1f} GB while one is written"
    ]
    shards = section(config, "data", "init_args").get("shards")
    if isinstance(shards, str) and "://" not in shards:
        folder = Path(locate(shards))
        if folder.is_dir():
            size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e9
            lines.append(f"          shards {shards}: {size:.1f} GB")
        else:
            lines.append(f"          shards {shards}: not here ({of_an_image(config)})")
    return lines


def of_an_image(config: Section) -> str:
    """What an image takes in shards; of pictures 0.44 to 0.62 bytes a grey pixel were measured on X-rays, without loss."""
    if section(config, "model", "init_args").get("space") != "pixel":
        return "512 px: 66 kB an image"
    unet = section(config, "model", "init_args", "unet")
    side = whole(unet, "sample_size", 64)
    kilobytes = (0.6 * side**2 * whole(unet, "in_channels", 1) + 2600) / 1000
    return f"{side} px: some {kilobytes:.0f} kB an image"
