"""``lightning sample``: draw images for prompts from a checkpoint."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace

from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.common.locks import locked
from meddiff.common.outside import terminal
from meddiff.common.targets import check_folder
from meddiff.common.text_files import read_text

if TYPE_CHECKING:
    from meddiff.models.latent_diffusion import LatentDiffusion
    from meddiff.models.sampling import SamplingOptions

#: How a published model draws unless told otherwise: the paper's 75 steps of pndm take three times as long for the same.
OF_MODELS: dict[str, Any] = {"sampler": "dpm++", "steps": 25, "guidance_scale": 4.0}
#: One image: its file, prompt and key.
Item = dict[str, str]


def main(arguments: list[str]) -> int:
    """Parse and run; returns the exit code.

    Raises:
        UserError: no checkpoint, no prompts, no VAE, or images of other settings are in the way.
    """
    from meddiff.cli.named_model import add_model_arguments
    from meddiff.cli.parsing import SentenceParser
    from meddiff.models.sampling import Sampler

    parser = SentenceParser(prog="lightning sample", description="Draw images for prompts from a checkpoint.")
    parser.add_argument(
        "--ckpt", type=str | None, default=None, help="Checkpoint file, or a run folder (its newest one)."
    )
    add_model_arguments(parser)
    parser.add_argument("--prompts", type=str, nargs="+", default=[], help="One or more prompts.")
    parser.add_argument("--prompts_file", type=str | None, default=None, help="Text file with one prompt a line.")
    text = "Run folder of a prior over prototype activations: images of a model with prototypes are drawn from what it draws."
    parser.add_argument("--prior", type=str | None, default=None, help=text)
    parser.add_argument("--num_images", type=int, default=1, help="Images for each prompt.")
    parser.add_argument("--out", type=str, default="samples", help="Folder for PNG files and samples.json.")
    parser.add_argument("--seed", type=int, default=0, help="Noise is drawn from (seed, prompt number, image number).")
    own = "by default as the run draws; with --model"
    text = f"pndm (the paper's), ddim or dpm++; {own} {OF_MODELS['sampler']}."
    parser.add_argument("--sampler", type=Sampler | None, default=None, help=text)
    text = f"Denoising steps (the paper's: 75, with pndm); {own} {OF_MODELS['steps']}."
    parser.add_argument("--steps", type=int | None, default=None, help=text)
    parser.add_argument(
        "--schedule",
        type=Literal["uniform", "exponential_early", "exponential_late"] | None,
        default=None,
        help="Timesteps to draw along, by DDIM whatever --sampler is; by default the sampler's own.",
    )
    parser.add_argument("--gamma", type=float, default=60.0, help="How crowded an exponential --schedule is.")
    text = f"Classifier-free guidance; 1 turns it off; {own} {OF_MODELS['guidance_scale']:g}."
    parser.add_argument("--guidance_scale", type=float | None, default=None, help=text)
    parser.add_argument("--batch_size", type=int, default=8, help="Images at once; does not change them.")
    parser.add_argument("--ema", type=bool, default=False, help="Draw from the averaged weights.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    options = parser.parse_args(arguments)
    prompts = list(options.prompts) + _read_prompts(options.prompts_file)
    if options.num_images < 1 or options.batch_size < 1:
        raise UserError(f"--num_images {options.num_images} and --batch_size {options.batch_size} must be 1 or more.")
    told = sampling_told(options)
    if options.schedule is not None and options.steps is not None:
        from meddiff.attribution.schedules import schedule

        schedule(options.schedule, options.steps, options.gamma)  # one that repeats timesteps is refused at once
    check_folder(Path(options.out))
    with locked(options.out, "lightning sample"):
        files = draw(prompts, options, told)
    print(terminal(f"{len(files)} images in {options.out}"))
    return 0


def sampling_told(options: Namespace) -> dict[str, Any]:
    """What the command line says of how to draw; the rest is the run's own.

    Raises:
        UserError: a number that cannot be.
    """
    from meddiff.models.sampling import SamplingOptions

    told = {name: options[name] for name in OF_MODELS if options[name] is not None}
    SamplingOptions(**told)
    return told


def sampling_of(model: "LatentDiffusion", told: Mapping[str, Any], published: bool) -> "SamplingOptions":
    """How to draw: as told, else as the run was told to, whose evaluations then show the same images.

    Args:
        published: the model is not of a run of ours, and says nothing of it.
    """
    from meddiff.models.sampling import SamplingOptions

    return SamplingOptions(**{**(OF_MODELS if published else asdict(model.sampling)), **told})


def _read_prompts(file: str | None) -> list[str]:
    if file is None:
        return []
    if not Path(file).is_file():
        raise UserError(f"No prompt file at {file}.")
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def draw(prompts: list[str], options: Namespace, told: Mapping[str, Any]) -> list[str]:
    """Draw ``options.num_images`` images for each prompt into ``options.out``; returns the file names.

    Images that are there already are kept if they say that they were drawn from the same weights, prompt and settings, so a
    stopped call goes on. A call that failed before its first image leaves nothing.

    Args:
        told: what was said of how to draw (:func:`sampling_told`).

    Raises:
        UserError: an image that would be drawn is there and was drawn from something else.
    """
    from meddiff.attribution.scheduled import draw_along
    from meddiff.attribution.schedules import schedule
    from meddiff.cli.named_model import open_named, reading
    from meddiff.cli.told_to_draw import drawing_from, prompts_for
    from meddiff.common.progress import progress_bar
    from meddiff.evaluation.provenance import made_from, model_digest, weights_digest, write_image
    from meddiff.models.autoencoder import whole_images
    from meddiff.models.weights.fitting import first_three

    run = open_named(options)
    with reading(run):
        out, model = Path(options.out), run.model
        prompts = prompts_for(run, prompts, options.prior)
        model.vae  # noqa: B018 (read now: without it nothing is drawn)
    sampling = sampling_of(model, told, options.model is not None)
    lost: list[str] = []  # prompts
    # Every step of every image counts, so that the bar moves on a slow machine too.
    with model.weights(options.ema):
        settings: dict[str, object] = {
            "seed": options.seed,
            "ema": options.ema,
            **asdict(sampling),
            "model": model_digest(model),
            "autoencoder": weights_digest(model.vae),
        }
        draw_some, more = drawing_from(model, options.prior, options.schedule, sampling)
        settings |= more
        if options.schedule is not None:
            timesteps = schedule(options.schedule, sampling.steps, options.gamma)
            settings |= {"sampler": "ddim", "schedule": options.schedule, "timesteps": timesteps}
            draw_some = partial(draw_along, model, timesteps=timesteps, guidance_scale=sampling.guidance_scale)
        items = [
            {"file": f"{p:04d}-{i:03d}.png", "prompt": prompt, "key": f"{p:04d}-{i:03d}"}
            for p, prompt in enumerate(prompts)
            for i in range(options.num_images)
        ]
        missing = missing_images(out, items, settings)
        about = {**settings, "checkpoint": str(run.file.resolve())}
        with progress_bar(
            len(missing) * sampling.steps, "step", f"drawing into {terminal(out)}", stream=sys.stdout
        ) as bar:
            for start in range(0, len(missing), options.batch_size):
                batch = missing[start : start + options.batch_size]
                texts, keys = [item["prompt"] for item in batch], [item["key"] for item in batch]
                before, done = bar.n, len(batch)

                def on_step(step: int, before: int = before, done: int = done) -> None:
                    bar.update(before + step * done - bar.n)

                draw_batch = partial(draw_some, seed=options.seed, on_step=on_step)
                images, broken = whole_images(draw_batch, texts, keys)
                lost += [item["prompt"] for item in batch if item["key"] in broken]
                for item in batch:
                    if item["key"] in images:
                        write_image(out / item["file"], images[item["key"]], made_from(settings, item["prompt"]))
                _write_record(out, about, items, settings)
    _write_record(out, about, items, settings)
    if lost:
        named = first_three(list(dict.fromkeys(lost)))
        raise UserError(
            f"{len(lost)} of {len(items)} images are not finite and are not written (prompts: {named}): take a smaller "
            f"--guidance_scale or more --steps, or an earlier checkpoint."
        )
    return [item["file"] for item in items]


def missing_images(out: Path, items: Sequence[Item], settings: Mapping[str, object]) -> list[Item]:
    """Those of ``items`` that are not there yet.

    Raises:
        UserError: one is there and does not say that it was drawn so: old images must not pass for new ones.
    """
    from meddiff.evaluation.provenance import differences, image_made_from, made_from

    missing = []
    for item in items:
        file = out / item["file"]
        if not file.exists():
            missing.append(item)
            continue
        other = differences(image_made_from(file) or {}, made_from(settings, item["prompt"]))
        if other:
            raise UserError(
                f"{out} holds images of other prompts or settings ({item['file']}: {', '.join(other)}): "
                f"choose another --out."
            )
    return missing


def _write_record(
    out: Path, about: Mapping[str, object], items: Sequence[Item], settings: Mapping[str, object]
) -> None:
    """``samples.json``: the settings, and the images that are there, also those of earlier calls under these settings."""
    from meddiff.evaluation.provenance import differences, image_made_from, made_from

    record = out / "samples.json"
    try:
        earlier = json.loads(record.read_text(encoding="utf-8"))["images"]
    except (OSError, ValueError, KeyError, TypeError):
        earlier = []
    listed = {item["file"]: item for item in [*earlier, *items]}
    there = [
        item
        for name, item in sorted(listed.items())
        if (out / name).is_file()
        and not differences(image_made_from(out / name) or {}, made_from(settings, item["prompt"]))
    ]
    write_json(record, {"settings": about, "images": there})
