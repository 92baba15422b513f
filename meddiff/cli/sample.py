"""``lightning sample``: draw images for prompts from a checkpoint."""

import json
import sys
from pathlib import Path

from jsonargparse import Namespace

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json
from meddiff.common.outside import terminal
from meddiff.common.targets import check_folder


def main(arguments: list[str]) -> int:
    """Parse and run; returns the exit code.

    Raises:
        UserError: no checkpoint, no prompts, no VAE, or images of other settings are in the way.
    """
    from meddiff.cli.parsing import SentenceParser
    from meddiff.models.sampling import Sampler

    parser = SentenceParser(prog="lightning sample", description="Draw images for prompts from a checkpoint.")
    parser.add_argument("--ckpt", type=str, required=True, help="Checkpoint file, or a run folder (its newest one).")
    parser.add_argument("--prompts", type=str, nargs="+", default=[], help="One or more prompts.")
    parser.add_argument("--prompts_file", type=str | None, default=None, help="Text file with one prompt a line.")
    parser.add_argument("--num_images", type=int, default=1, help="Images for each prompt.")
    parser.add_argument("--out", type=str, default="samples", help="Folder for PNG files and samples.json.")
    parser.add_argument("--seed", type=int, default=0, help="Noise is drawn from (seed, prompt number, image number).")
    parser.add_argument("--sampler", type=Sampler, default="dpm++", help="pndm (the paper's), ddim or dpm++.")
    parser.add_argument("--steps", type=int, default=25, help="Denoising steps (the paper's: 75, with pndm).")
    parser.add_argument("--guidance_scale", type=float, default=4.0, help="Classifier-free guidance; 1 turns it off.")
    parser.add_argument("--batch_size", type=int, default=8, help="Images at once; does not change them.")
    parser.add_argument("--ema", type=bool, default=False, help="Draw from the averaged weights.")
    parser.add_argument("--vae", type=str | None, default=None, help="Autoencoder, if it has moved since training.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    options = parser.parse_args(arguments)
    prompts = list(options.prompts) + _read_prompts(options.prompts_file)
    if not prompts:
        raise UserError('No prompts: give --prompts "..." or --prompts_file FILE.')
    if options.num_images < 1 or options.batch_size < 1:
        raise UserError(f"--num_images {options.num_images} and --batch_size {options.batch_size} must be 1 or more.")
    check_folder(Path(options.out))
    files = draw(prompts, options)
    print(terminal(f"{len(files)} images in {options.out}"))
    return 0


def _read_prompts(file: str | None) -> list[str]:
    if file is None:
        return []
    if not Path(file).is_file():
        raise UserError(f"No prompt file at {file}.")
    return [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]


def draw(prompts: list[str], options: Namespace) -> list[str]:
    """Draw ``options.num_images`` images for each prompt into ``options.out``; returns the file names.

    Images that are there already are kept if they were drawn with the same settings, so a stopped call goes on.
    """
    from PIL import Image
    from tqdm import tqdm

    from meddiff.models.latent_diffusion import model_of
    from meddiff.models.sampling import SamplingOptions
    from meddiff.runs.open_run import open_run

    sampling = SamplingOptions(options.sampler, options.steps, options.guidance_scale)
    moved = {"vae": options.vae} if options.vae else {}
    run = open_run(None, options.ckpt, device=options.device, **moved)
    out, checkpoint = Path(options.out), run.checkpoint_file
    settings = {
        "checkpoint": str(checkpoint.resolve()),
        "seed": options.seed,
        "ema": options.ema,
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
    }
    items = [
        {"file": f"{p:04d}-{i:03d}.png", "prompt": prompt, "key": f"{p:04d}-{i:03d}"}
        for p, prompt in enumerate(prompts)
        for i in range(options.num_images)
    ]
    _refuse_other_settings(out / "samples.json", settings, items)
    missing = [item for item in items if not (out / item["file"]).is_file()]
    if missing:
        model = model_of(run.module)
        # Every step of every image counts, so that the bar moves on a slow machine too.
        bar = tqdm(total=len(missing) * sampling.steps, unit="step", desc="sample", file=sys.stdout)
        with bar, model.weights(options.ema):
            for start in range(0, len(missing), options.batch_size):
                batch = missing[start : start + options.batch_size]
                prompts, keys = [item["prompt"] for item in batch], [item["key"] for item in batch]
                before, done = bar.n, len(batch)

                def on_step(step: int, before: int = before, done: int = done) -> None:
                    bar.update(before + step * done - bar.n)

                images = model.sample(prompts, keys, options.seed, sampling, on_step=on_step)
                for item, image in zip(batch, images, strict=True):
                    with atomic_open(out / item["file"]) as stream:
                        Image.fromarray(image).save(stream, format="PNG")
    write_json(out / "samples.json", {"settings": settings, "images": items})
    return [item["file"] for item in items]


def _refuse_other_settings(record: Path, settings: dict[str, object], items: list[dict[str, str]]) -> None:
    """Old images must not pass for new ones."""
    if not record.is_file():
        # The record is written before the first image, so that a stopped call is recognised.
        write_json(record, {"settings": settings, "images": items})
        return
    earlier = json.loads(record.read_text(encoding="utf-8"))
    same_items = all(a == b for a, b in zip(earlier["images"], items, strict=False))
    if earlier["settings"] != settings or not same_items:
        raise UserError(f"{record.parent} holds images of other prompts or settings: choose another --out.")
