"""Makers of the small components (also run by the child processes of the resume tests)."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning import Trainer
    from lightning.pytorch import Callback

UNET: dict[str, object] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
TEXT: dict[str, object] = {"width": 16, "heads": 2, "layers": 2}


def make_vae(folder: Path, seed: int) -> Path:
    """An ``AutoencoderKL`` that shrinks by 8."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8, 8, 8, 8],
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    ).save_pretrained(folder)
    return folder


def make_shards(
    folder: Path, vae: Path, n: int = 60, resolution: int = 64, per_shard: int = 16, **splits: float | tuple[str, ...]
) -> Path:
    """Shards of phantoms, written in this process (the command's pool costs a spawn)."""
    from meddiff.models.backbones import load_vae
    from meddiff.phantoms import PhantomCohort, PhantomOptions
    from meddiff.preparation.encode import encoded_samples, shard_header
    from meddiff.shards.writer import ShardWriter

    options = PhantomOptions(n=n, resolution=resolution, **splits)
    cohort = PhantomCohort(options)
    writer = ShardWriter(
        folder, shard_header("phantom", "test", options.told(), str(vae), resolution, "none"), per_shard
    )
    model = load_vae(str(vae))
    keys = list(cohort.keys())
    for split in ("train", "val", "grounding", "fidelity"):
        indices = sorted((i for i in range(n) if cohort.split_of(i) == split), key=lambda i: keys[i])
        writer.write(split, encoded_samples(cohort, indices, model))
    writer.finish()
    return folder


def model_config(vae: Path | str, **overrides: object) -> dict[str, object]:
    """Arguments of a tiny LatentDiffusionModule."""
    return {"unet": UNET, "text_encoder": TEXT, "vae": str(vae), "ema_decay": 0.9, "learning_rate": 1e-3, **overrides}


def quiet_trainer(
    folder: Path,
    steps: int,
    callbacks: "list[Callback] | None" = None,
    limit_val_batches: int | None = None,
    val_check_interval: int | None = None,
    use_distributed_sampler: bool = True,
) -> "Trainer":
    """A Trainer on the CPU that trains ``steps`` steps and writes nothing."""
    import lightning as L

    return L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        limit_val_batches=limit_val_batches,
        val_check_interval=val_check_interval,
        use_distributed_sampler=use_distributed_sampler,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
