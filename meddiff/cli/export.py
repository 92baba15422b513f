"""``lightning export``: a trained model as a diffusers pipeline, or as one file in Stable Diffusion's original layout."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, sync_folder, write_json
from meddiff.common.locks import locked
from meddiff.common.outside import terminal
from meddiff.common.targets import check_folder

if TYPE_CHECKING:
    from meddiff.models.latent_diffusion import LatentDiffusion
    from meddiff.reports.model_card import DataFacts, ModelFacts
    from meddiff.runs.facts import Facts

#: What a folder was exported from: digests only.
RECORD = "export.json"


def main(arguments: list[str]) -> int:
    """Parse and export; returns the exit code.

    Raises:
        UserError: no checkpoint, no VAE, no average where one is asked for, or something else lies at --out.
    """
    from meddiff.cli.parsing import SentenceParser

    parser = SentenceParser(
        prog="lightning export",
        description="Write a trained model as a diffusers pipeline: DiffusionPipeline.from_pretrained(DIR) reads it.",
    )
    parser.add_argument("--run", type=str | None, default=None, help="Run folder: its newest checkpoint is exported.")
    parser.add_argument("--ckpt", type=str | None, default=None, help="Checkpoint file.")
    parser.add_argument(
        "--out", type=str, required=True, help="Folder to write; new, empty, or an earlier export of this."
    )
    parser.add_argument(
        "--single_file",
        "--single-file",
        action="store_true",
        help="Write one model.safetensors in Stable Diffusion's original layout instead.",
    )
    parser.add_argument("--ema", action="store_true", help="The averaged weights in the place of the raw ones.")
    parser.add_argument("--half", action="store_true", help="Round to float16: half the size.")
    parser.add_argument("--vae", type=str | None, default=None, help="Autoencoder, if it has moved since training.")
    options = parser.parse_args(arguments)
    out = Path(os.path.abspath(options.out))
    check_folder(out)
    refuse_others(out, None)
    with locked(out.parent, "lightning export", name=f".{out.name}.lock"):
        recover(out)
        export(out, options.run, options.ckpt, options.single_file, options.ema, options.half, options.vae)
    return 0


def export(
    out: Path, run: str | None, ckpt: str | None, single_file: bool, ema: bool, half: bool, vae: str | None
) -> None:
    """Write a run's model to ``out``: all of it, or nothing.

    Raises:
        UserError: see :func:`main`.
    """
    from meddiff.evaluation.provenance import model_digest, weights_digest
    from meddiff.models.patronus import refuse_pipeline
    from meddiff.models.weights.pipeline_folder import SINGLE_FILE, write_original, write_pipeline
    from meddiff.reports.model_card import model_card
    from meddiff.runs.folder import read_run
    from meddiff.runs.open_run import open_run

    moved = {"vae": vae} if vae else {}
    opened = open_run(run, ckpt, **moved)
    model = opened.model
    refuse_pipeline(model)
    with model.weights(ema):
        made: dict[str, object] = {
            "model": model_digest(model),
            "autoencoder": weights_digest(model.vae),
            "schedule": dict(model.noise_schedule.config),
            "sampler": model.sampling.sampler,
            "ema": ema,
            "half": half,
            "single_file": single_file,
        }
        refuse_others(out, made)
        with whole_folder(out) as folder:
            (write_original if single_file else write_pipeline)(folder, model, half, told)
            about = model_facts(folder, model, opened.images, ema, half, single_file)
            facts = opened.facts
            run_folder = None if facts.section("model")[0] is None or facts.run is None else read_run(facts.run)
            card = model_card(about, data_facts(facts), run_folder)
            with atomic_open(folder / "README.md", "w") as stream:
                stream.write(card)
            write_json(folder / RECORD, made)
    if model.text_encoder.attention_mask:
        print(
            "its U-Net attends to no padding: diffusers' pipeline lets it and draws other images (README.md says more)"
        )
    target = out / SINGLE_FILE if single_file else out
    how = "StableDiffusionPipeline.from_single_file" if single_file else "DiffusionPipeline.from_pretrained"
    weights = "averaged" if ema else "raw"
    print(terminal(f"{weights} weights after {opened.images} images in {target}: {how} reads them"))


def refuse_others(out: Path, made: dict[str, object] | None) -> None:
    """Refuse a folder that holds something else than an earlier export.

    Args:
        made: what would be written; None: any export will do, until the weights are known.

    Raises:
        UserError: it does.
    """
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        before = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{out} holds something else than an export: choose another --out, or empty it.") from None
    from meddiff.evaluation.provenance import differences

    other = differences(before, made) if made is not None and isinstance(before, dict) else []
    if other or not isinstance(before, dict):
        raise UserError(
            f"{out} holds an export of something else ({', '.join(other) or RECORD}): choose another --out, or empty it."
        )


def beside(out: Path) -> tuple[Path, Path]:
    """Where the new folder is written, and where the old one waits until it is whole."""
    return out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.old")


def recover(out: Path) -> None:
    """Clear what a killed call left; if it was killed between the two renames, the earlier export comes back."""
    part, old = beside(out)
    if old.exists() and not out.exists():
        os.replace(old, out)
    for leftover in (part, old):  # who is here holds the lock
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A new folder beside ``out`` that takes its place when the block ends without error; else nothing is left of it."""
    part, old = beside(out)
    part.mkdir(parents=True)
    try:
        yield part
        sync_folder(part)
        if out.exists():
            os.replace(out, old)
        os.replace(part, out)
        sync_folder(out.parent)
    finally:
        recover(out)


def told(part: str) -> None:
    """A line for each part that is written."""
    print(f"{part} written", flush=True)


def model_facts(
    folder: Path, model: "LatentDiffusion", images: int, ema: bool, half: bool, single_file: bool
) -> "ModelFacts":
    """What the card says of the weights in ``folder``."""
    from meddiff.models.backbones import vae_downsample
    from meddiff.models.weights.pipeline_folder import PARTS
    from meddiff.models.weights.sources import weights_file
    from meddiff.reports.model_card import ModelFacts

    networks = dict(zip(PARTS, (model.unet, model.text_encoder, model.vae), strict=True))
    places = {"file": folder} if single_file else {part: folder / part for part in PARTS}
    return ModelFacts(
        images=images,
        frozen=model.freeze_text_encoder,
        ema=ema,
        half=half,
        single_file=single_file,
        schedule=dict(model.noise_schedule.config),
        sampling=asdict(model.sampling),
        parameters={part: sum(p.numel() for p in network.parameters()) for part, network in networks.items()},
        digests={part: file_digest(weights_file(place)) for part, place in places.items()},
        resolution=model.latent_shape[1] * vae_downsample(dict(model.vae.config)),
        tokens=model.text_encoder.tokenizer.max_length,
        masked=model.text_encoder.attention_mask,
    )


def file_digest(file: Path) -> str:
    """sha256 of a file, as ``sha256sum`` prints it."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def data_facts(facts: "Facts") -> "DataFacts | None":
    """Cohorts and manifest of a run's data as they are today; None where nothing says what it was trained on.

    Nothing is made: phantoms that are gone stay gone.
    """
    from meddiff.reports.model_card import DataFacts
    from meddiff.runs.building import DATA, build
    from meddiff.shards.manifest import MANIFEST_NAME

    path, arguments = facts.section("data")
    if path is None:
        return None
    try:
        data = build(path, arguments, DATA)
        cohorts = cast("list[tuple[str, str]]", list(data.cohorts()))  # type: ignore[attr-defined]
    except (UserError, AttributeError):
        return None
    folder = getattr(data, "folder", None) or getattr(data, "shards", None)
    file = Path(os.path.expanduser(folder)) / MANIFEST_NAME if isinstance(folder, str) else None
    return DataFacts(cohorts, file_digest(file) if file is not None and file.is_file() else "")
