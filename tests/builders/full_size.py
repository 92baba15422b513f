"""Stable Diffusion 2 at its own size with random weights, each stage in a process of its own.

Prints one line of JSON: what was found, and ``peak``, the most memory the process held, in GiB.
``python -m tests.builders.full_size STAGE FOLDER``
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from meddiff.models.weights.pipeline_folder import SINGLE_FILE

UNET: dict[str, object] = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
TEXT: dict[str, object] = {"width": 1024, "heads": 16, "layers": 23}
VAE: dict[str, object] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}


def write(folder: Path) -> dict[str, object]:
    """The model as a folder and as one file, in half precision; and shards of 512 px."""
    from diffusers import AutoencoderKL

    from meddiff.models.latent_diffusion import LatentDiffusion
    from meddiff.models.weights.pipeline_folder import write_original, write_pipeline
    from tests.builders.tiny import make_shards, make_vae

    torch.manual_seed(0)
    AutoencoderKL(**VAE).save_pretrained(folder / "drawn_vae")
    model = LatentDiffusion.build(UNET, TEXT, str(folder / "drawn_vae"))
    write_pipeline(folder / "pipeline", model, half=True)
    write_original(folder / "single", model, half=True)
    small = make_vae(folder / "small_vae", 0)
    make_shards(folder / "shards", small, n=6, resolution=512, val=1, grounding=1, fidelity=1)
    return {"unet": sum(p.numel() for p in model.unet.parameters())}


def ground(folder: Path, name: str) -> dict[str, object]:
    """Read all three parts, ground one phrase, and tell what was read."""
    from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
    from meddiff.attribution.words import query_tokens
    from meddiff.evaluation.provenance import weights_digest
    from meddiff.models.pipeline import load_pipeline

    model = load_pipeline(str(folder / name), prediction_type="epsilon")
    text = "Large right pleural effusion."
    query = query_tokens(model.text_encoder.tokenizer, text, ("effusion",))
    item = GroundingItem("a", torch.randn(4, 64, 64), text, query.weights[None])
    maps = [one.maps for one in grounding_pass(model, [item], [201, 781])]
    finite = all(bool(one.isfinite().all()) and one.shape == (1, 64, 64) for one in maps)
    return {"digest": weights_digest(model.unet, model.text_encoder, model.vae), "finite": finite}


def train(folder: Path, name: str) -> dict[str, object]:
    """One optimiser step of the U-Net in float32, text tower frozen, activations kept."""
    from datamodules import LatentShardsDataModule
    from lightning_modules import LatentDiffusionModule
    from tests.builders.tiny import quiet_trainer

    source = str(folder / name)
    module = LatentDiffusionModule(source, source, ema_decay=None)
    trainer = quiet_trainer(folder, 1, limit_val_batches=0)
    data = LatentShardsDataModule(str(folder / "shards"), batch_size=1)
    trainer.fit(module, datamodule=data)
    return {"loss": float(trainer.callback_metrics["train/loss"]), "steps": trainer.global_step}


STAGES = {
    "write": write,
    "ground_file": lambda folder: ground(folder, f"single/{SINGLE_FILE}"),
    "ground_folder": lambda folder: ground(folder, "pipeline"),
    "train_file": lambda folder: train(folder, f"single/{SINGLE_FILE}"),
    "train_folder": lambda folder: train(folder, "pipeline"),
}

if __name__ == "__main__":
    start = time.monotonic()
    result = STAGES[sys.argv[1]](Path(sys.argv[2]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
    print(json.dumps({**result, "peak": round(peak, 2), "seconds": round(time.monotonic() - start)}))
