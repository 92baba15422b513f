"""A whole model as the folder of a diffusers pipeline: ``DiffusionPipeline.from_pretrained(FOLDER)``.

Nothing but weights and what is needed to compute with them: no prompt, no caption, and no path that a part was read from.
Source: the layout is diffusers'.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.models.weights.network_files import write_network
from meddiff.models.weights.reading import read_state
from meddiff.models.weights.schedule_file import scheduler_settings, write_scheduler
from meddiff.models.weights.single_file import Layout, write_single_file
from meddiff.models.weights.sources import Part, read_config, weights_file

if TYPE_CHECKING:
    from meddiff.models.latent_diffusion import LatentDiffusion

SINGLE_FILE = "model.safetensors"
PARTS: tuple[Part, ...] = ("unet", "text_encoder", "vae")


def write_pipeline(
    folder: Path, model: "LatentDiffusion", half: bool, on_part: Callable[[str], None] = lambda part: None
) -> None:
    """Write every part of ``model`` with the weights it has at the moment.

    Args:
        folder: an empty one; its writing is not atomic as a whole.
        half: store float16.
        on_part: called with the name of each part when it is written.

    Raises:
        UserError: the model has no autoencoder, or a weight is not finite as it would be stored.
    """
    import diffusers

    write_network(model.vae, folder / "vae", half)
    on_part("vae")
    model.text_encoder.save(folder, half)
    on_part("text_encoder")
    write_network(model.unet, folder / "unet", half)
    on_part("unet")
    schedule, sampler = model.noise_schedule.config, model.sampling.sampler
    write_scheduler(folder, schedule, sampler)
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": diffusers.__version__,
            "unet": ["diffusers", _named(folder / "unet", "config.json", "_class_name")],
            "vae": ["diffusers", _named(folder / "vae", "config.json", "_class_name")],
            "text_encoder": ["transformers", _named(folder / "text_encoder", "config.json", "architectures")],
            "tokenizer": ["transformers", _named(folder / "tokenizer", "tokenizer_config.json", "tokenizer_class")],
            "scheduler": ["diffusers", str(scheduler_settings(schedule, sampler)["_class_name"])],
            # there is none for medical images
            "safety_checker": [None, None],
            "requires_safety_checker": False,
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
        },
    )


def write_original(
    folder: Path, model: "LatentDiffusion", half: bool, on_part: Callable[[str], None] = lambda part: None
) -> None:
    """Write every part of ``model`` into one file in the layout that Stable Diffusion was published in.

    The parts go over the disk, so that whatever a text tower writes of itself is what the file holds.

    Args:
        folder: as for :func:`write_pipeline`; :data:`SINGLE_FILE` is made in it.

    Raises:
        UserError: as :func:`write_pipeline`, or a part that the layout has no names for.
    """
    if "tokenizer" in model.text_encoder.config:
        raise UserError("text_encoder: a single file has no place for its vocabulary: write a folder.")
    write_pipeline(folder / "parts", model, half, on_part)
    stored = {}
    for part in PARTS:
        place = folder / "parts" / part
        config = {name: value for name, value in read_config(place).items() if not name.startswith("_d")}
        stored[part] = (config, read_state(weights_file(place)))
    # OpenAI's CLIP is told from open_clip's by its activation
    layout: Layout = "sd1" if stored["text_encoder"][0].get("hidden_act") == "quick_gelu" else "sd2"
    write_single_file(folder / SINGLE_FILE, stored, layout, half)
    shutil.rmtree(folder / "parts")


def _named(folder: Path, file: str, name: str) -> str:
    found = json.loads((folder / file).read_text(encoding="utf-8"))[name]
    return str(found[0] if isinstance(found, list) else found)
