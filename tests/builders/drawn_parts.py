"""Makers of what the measurements need, small, with random weights; and their running as `lightning evaluate` does it."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from meddiff.common.findings import FINDINGS
from meddiff.evaluation.measurement import Measurement
from meddiff.evaluation.ranks import Ranks
from meddiff.models.autoencoder import FrozenAutoencoder
from meddiff.models.backbones import build_unet
from meddiff.models.domain_classifier import build_classifier, save_classifier
from meddiff.models.ema import ExponentialMovingAverage
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.sampling import SamplingOptions
from meddiff.models.text.build import build_text_encoder
from meddiff.runs.evaluations import EvaluationWriter
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.tiny import TEXT, UNET, make_shards

QUICK = SamplingOptions("dpm++", 2, 2.0)


def make_split(folder: Path, vae: Path, images: int = 24) -> LatentShardsDataset:
    """The fidelity split of a cohort of 64 px phantoms."""
    return LatentShardsDataset(make_shards(folder, vae, n=images + 6, val=2, grounding=2, fidelity=images), "fidelity")


def make_model(vae: Path, seed: int = 0) -> LatentDiffusion:
    """A small model that draws 64 px images, in eval mode; it keeps an average of its weights."""
    model = LatentDiffusion.build(UNET, TEXT, str(vae), seed=seed)
    model.ema = ExponentialMovingAverage(model.trained_parameters(), 0.9)
    return model.eval()


def make_attentive_model(side: int, seed: int = 0, vae: str | None = None) -> LatentDiffusion:
    """A small model on latents of ``side`` whose attention tells words and places apart; as drawn it barely does."""
    torch.manual_seed(seed)
    unet, tower = build_unet({**UNET, "sample_size": side}), build_text_encoder(TEXT)
    with torch.no_grad():
        tower.token_embedding.weight.mul_(30)
        for name, weight in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                weight.mul_(8)
    return LatentDiffusion(unet, tower, NoiseSchedule("epsilon"), FrozenAutoencoder(vae)).eval()


def run_part(
    measurement: Measurement, model: LatentDiffusion, split: LatentShardsDataset, out: Path
) -> dict[str, float]:
    """Measure into ``out`` and write the tables there; the figures."""
    result = measurement.run(model, split, out, Ranks())
    writer = EvaluationWriter(out, {"model": "tiny", "images": 0, "seed": 0})
    for name, table in result.tables.items():
        writer.table(name, table.rows, table.first, table.only)
    return result.figures


class CountedPasses:
    """Context manager that counts what a U-Net really computes: ``samples``, elements of all batches it was given."""

    def __init__(self, model: LatentDiffusion) -> None:
        self.model, self.samples = model, 0

    def __enter__(self) -> Self:
        self._handle = self.model.unet.register_forward_hook(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        self.samples += len(inputs[0])


def make_classifier(folder: Path, seed: int = 0) -> Path:
    """A domain classifier with random weights: distances are defined, if meaningless."""
    torch.manual_seed(seed)
    network = {"growth_rate": 8, "block_config": [2, 2], "num_init_features": 8}
    save_classifier(build_classifier(network, list(FINDINGS)), network, folder)
    return folder


def rewrite_split(dataset: LatentShardsDataset, folder: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Copy a cohort to ``folder`` with the members of the split's tars passed through ``change`` (name, bytes)."""
    folder.mkdir(parents=True)
    manifest = json.loads((dataset.folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        target = folder / shard["name"]
        with tarfile.open(dataset.folder / shard["name"]) as old, tarfile.open(target, "w") as new:
            for member in old:
                stream = old.extractfile(member)
                assert stream is not None
                payload = stream.read()
                if shard["split"] == dataset.split:
                    payload = change(member.name, payload)
                member.size = len(payload)
                new.addfile(member, io.BytesIO(payload))
        data = target.read_bytes()
        shard.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(manifest))


def one_pixel_darker(payload: bytes) -> bytes:
    """A PNG with one pixel changed."""
    pixels = np.array(Image.open(io.BytesIO(payload)))
    pixels[5, 5] = pixels[5, 5] // 2 + 1
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def stamps(folder: Path) -> dict[str, int]:
    """When each image of a folder was written."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*.png"))}
