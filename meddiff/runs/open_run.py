"""What is evaluated: a trained model, the cohort it was trained on, and where the results go. Source: own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from datamodules.latent_shards import LatentShardsDataModule
from lightning_modules.latent_diffusion import LatentDiffusionModule
from meddiff.common.errors import UserError
from meddiff.runs.checkpoints import find_checkpoint, load_module

CONFIG = "config.yaml"


@dataclass
class Subject:
    """A model under evaluation.

    Attributes:
        run: its run folder; None for a checkpoint that lies elsewhere.
        checkpoint: the file.
        images: images it has seen.
        name: of the run.
        seed: of its training (``seed_everything``).
        prompt: the texts it was trained with.
    """

    module: LatentDiffusionModule
    data: LatentShardsDataModule
    run: Path | None
    checkpoint: Path
    images: int
    name: str
    seed: int
    prompt: str

    def describe(self) -> dict[str, Any]:
        """What the tables group models by."""
        return {
            "model": self.name,
            "run": str(self.run or self.checkpoint),
            "checkpoint": self.checkpoint.name,
            "images": self.images,
            "seed": self.seed,
            "freeze_text_encoder": bool(self.module.h.freeze_text_encoder),
            "prompt": self.prompt,
            "cohort": self.data.manifest.cohort,
        }


def load_subject(
    run: str | None, ckpt: str | None, shards: str | None = None, vae: str | None = None, device: str = "auto"
) -> Subject:
    """Find a run's newest checkpoint (or take ``ckpt``), its configuration and its cohort.

    Args:
        run: run folder, ``RUNS/NAME/TIME``.
        ckpt: checkpoint file; in a run folder its configuration is found, elsewhere ``shards`` is needed.
        shards: evaluate on this folder of shards instead.
        vae: autoencoder, if it has moved since training.
        device: "auto", "cpu", "cuda", ...

    Raises:
        UserError: neither or both given, nothing there, or no cohort to evaluate on.
    """
    if (run is None) == (ckpt is None):
        raise UserError("Give either --run RUN (its newest checkpoint) or --ckpt FILE.")
    checkpoint = find_checkpoint(run or str(ckpt))
    folder = Path(run) if run else next((p for p in checkpoint.parents if (p / CONFIG).is_file()), None)
    config = read_config(folder) if folder and (folder / CONFIG).is_file() else {}
    data = _data(config, shards, checkpoint)
    module = load_module(checkpoint, **({"vae": vae} if vae else {}))
    wanted = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    module.to(wanted)
    return Subject(
        module,
        data,
        folder,
        checkpoint,
        images_seen(checkpoint),
        str(config.get("name") or checkpoint.stem),
        int(config.get("seed_everything") or 0),
        str(data.prompt),
    )


def read_config(run: Path) -> dict[str, Any]:
    """``config.yaml`` of a run folder."""
    config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise UserError(f"{run / CONFIG} is no configuration of a run.")
    return config


def _data(config: dict[str, Any], shards: str | None, checkpoint: Path) -> LatentShardsDataModule:
    """The run's data module, by its own arguments, or one over ``shards``."""
    given = config.get("data") or {}
    arguments = dict(given.get("init_args") or {})
    prompt, others = arguments.get("prompt", "impression"), arguments.get("splits_from")
    if shards is not None:
        return LatentShardsDataModule(shards, batch_size=1, prompt=prompt)
    if "phantom" in arguments:
        from datamodules.phantom import PhantomLatentsDataModule
        from meddiff.phantoms import PhantomOptions

        phantom: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments["phantom"].items()}
        data = PhantomLatentsDataModule(
            PhantomOptions(**phantom),
            arguments["vae"],
            arguments.get("shards"),
            batch_size=1,
            prompt=prompt,
            splits_from=others,
        )
        data.prepare_data()
        return data
    if "shards" not in arguments:
        raise UserError(f"{checkpoint} lies in no run folder with a {CONFIG}: give --shards DIR to evaluate on.")
    return LatentShardsDataModule(arguments["shards"], batch_size=1, prompt=prompt, splits_from=others)


def images_seen(checkpoint: Path) -> int:
    """Images the model of a checkpoint has been trained on; its optimiser steps where no data module was stored."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    for value in state.values():
        if isinstance(value, dict) and "images_consumed" in value:
            return int(value["images_consumed"])
    return int(state.get("global_step", 0))
