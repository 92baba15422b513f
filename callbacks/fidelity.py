"""How good are the images? Frechet and kernel distances of drawn images to real ones, during training."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.evaluation import EvaluationCallback
from callbacks.media import save_samples
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.evaluation.ranks import gather_rows
from meddiff.evaluation.samples import evaluation_latents, image_tensor, pixels_tensor
from meddiff.metrics.functional import feature_statistics, frechet_distance, kernel_distance
from meddiff.models.backbones import untrained_twin
from meddiff.models.feature_extractors import Extractor, build_extractor, missing_extractors
from meddiff.models.sampling import SamplingOptions, decode
from meddiff.runs.tables import update_controls

#: The domain classifier that ships with the suite (configs/phantom_classifier.yaml).
DEFAULT_CLASSIFIER = "assets/phantom_classifier"


class FidelityCallback(EvaluationCallback):
    """Logs ``fidelity/fid_*`` and ``fidelity/kid_*``: drawn images against real ones, feature extractor by extractor.

    The first half of the split is the reference. Images are drawn for the captions of the second half, whose own real
    images give the control *real against real* at the same N; *noise* and *autoencoder* (the same real images through
    the VAE) are measured once, into ``RUN/controls.json``. A Frechet distance has a bias that grows as N falls: only
    figures of one N compare, so N is logged beside it. Source: Heusel et al. 2017, Binkowski et al. 2018; controls own.

    Args:
        every_n_images: interval; also runs at step 0 and at the end.
        samples: images drawn, and size of the reference (the split must hold twice as many).
        split: of the shards; must carry images.
        weights: feature extractor -> weights, e.g. ``{domain: assets/phantom_classifier, inception: FILE}``.
        sampling: how images are drawn; null takes the model's own ``sampling``.
        compare_with: more ways to draw, each logged as ``fidelity/<sampler>/...``.
        batch_size: images drawn at a time and rank; changes no result.
        untrained: draw as many images from the same network with random weights too, once, as a fourth control.
        shown: images kept in ``RUN/media/samples`` and sent to W&B.
        ema: evaluate the averaged weights instead of the raw ones.
        seed: of the initial noise; the same numbers at every evaluation.
    """

    def __init__(
        self,
        every_n_images: int,
        samples: int = 1000,
        split: str = "fidelity",
        weights: dict[str, str] | None = None,
        sampling: SamplingOptions | None = None,
        compare_with: list[SamplingOptions] | None = None,
        batch_size: int = 32,
        untrained: bool = False,
        shown: int = 8,
        ema: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_images)
        if samples < 2:
            raise UserError(f"FidelityCallback: samples is {samples}; a distance between sets needs at least 2.")
        self.samples, self.split, self.batch_size, self.shown = samples, split, batch_size, shown
        self.untrained = untrained
        self.weights = {"domain": DEFAULT_CLASSIFIER} if weights is None else weights
        self.sampling, self.compare_with, self.ema, self.seed = sampling, compare_with or [], ema, seed
        self._extractors: dict[str, Extractor] = {}
        self._reference: dict[str, Tensor] = {}

    @classmethod
    def preflight(cls, **init_args: Any) -> list[str]:
        """One sentence for each file of extractor weights that is not there; looks at the disk only."""
        return missing_extractors(init_args.get("weights") or {})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        problems = missing_extractors(self.weights)
        if problems:
            raise UserError(" ".join(problems))
        there = len(self.dataset(trainer))
        if there < 2 * self.samples:
            raise UserError(
                f"FidelityCallback: the split {self.split!r} holds {there} images, and {self.samples} samples need "
                f"{2 * self.samples} (a reference and captions to draw): set samples to {there // 2} or prepare more."
            )

    def forward_passes(self, trainer: Trainer, module: Any) -> float:
        ways = [self.sampling or module.sampling, *self.compare_with]
        return float(sum(self.samples * way.steps * (1 + (way.guidance_scale != 1.0)) for way in ways))

    def evaluate(self, trainer: Trainer, module: Any, images: int) -> dict[str, float]:
        dataset = self.dataset(trainer)
        if not self._extractors:  # weights are read once a run
            self._extractors = {name: build_extractor(name, path, module.device) for name, path in self.weights.items()}
        extractors = self._extractors
        if not self._reference:
            self._reference = self._measure(trainer, extractors, lambda i: image_tensor(dataset, i), 0)
        captions = {i: dataset.metadata(i)["impression"] for i in range(self.samples, 2 * self.samples)}
        if images == 0:
            self._controls(trainer, module, extractors, dataset, captions)
        results: dict[str, float] = {"fidelity/n": float(self.samples)}
        with module.evaluated_weights(ema=self.ema):
            for place, way in enumerate([self.sampling or module.sampling, *self.compare_with]):
                drawn = self._draw(trainer, module, captions, dataset, way)
                features = self._measure(trainer, extractors, partial(_drawn_tensor, drawn), self.samples)
                prefix = "fidelity/" if place == 0 else f"fidelity/{way.sampler}/"
                results |= {f"{prefix}{name}": value for name, value in self._distances(features).items()}
                if place == 0 and trainer.is_global_zero:
                    save_samples(trainer, images, dataset, captions, drawn, way.sampler, self.shown)
        return results

    # ---- parts --------------------------------------------------------------------------------------------------

    def _draw(
        self, trainer: Trainer, module: Any, captions: dict[int, str], dataset: Any, way: SamplingOptions, **kwargs: Any
    ) -> dict[int, np.ndarray]:
        """This rank's share of the images, by index in the split: uint8 (H, W, 3)."""
        mine = list(captions)[trainer.global_rank :: trainer.world_size]
        drawn: dict[int, np.ndarray] = {}
        for start in range(0, len(mine), self.batch_size):
            part = mine[start : start + self.batch_size]
            keys = [dataset.keys[i] for i in part]
            images = module.sample([captions[i] for i in part], keys, self.seed, way, **kwargs)
            drawn |= dict(zip(part, images, strict=True))
        return drawn

    def _measure(
        self, trainer: Trainer, extractors: dict[str, Extractor], image: Callable[[int], Tensor], first: int
    ) -> dict[str, Tensor]:
        """Features of ``samples`` images from index ``first`` on, shared among ranks: name -> (N, D) on the CPU."""
        indices = range(first, first + self.samples)[trainer.global_rank :: trainer.world_size]
        device = trainer.strategy.root_device
        rows: list[tuple[int, dict[str, Tensor]]] = []
        for start in range(0, len(indices), self.batch_size):
            part = indices[start : start + self.batch_size]
            images = torch.stack([image(i) for i in part]).to(device)  # (B, 3, H, W)
            found = {name: extract(images).float().cpu() for name, extract in extractors.items()}
            rows += [(i, {name: values[k] for name, values in found.items()}) for k, i in enumerate(part)]
        ordered = [features for _, features in sorted(gather_rows(rows), key=lambda row: row[0])]
        return {name: torch.stack([features[name] for features in ordered]) for name in extractors}

    def _distances(self, features: dict[str, Tensor]) -> dict[str, float]:
        """``fid_NAME`` and ``kid_NAME`` of (N, D) features to the reference."""
        result = {}
        for name, values in features.items():
            reference = self._reference[name]
            result[f"fid_{name}"] = frechet_distance(feature_statistics(reference), feature_statistics(values))
            result[f"kid_{name}"] = kernel_distance(reference, values)
        return result

    def _controls(
        self,
        trainer: Trainer,
        module: Any,
        extractors: dict[str, Extractor],
        dataset: Any,
        captions: dict[int, str],
    ) -> None:
        """Real against real, through the autoencoder, noise, and if asked for an untrained network: all at this N."""

        def noise(i: int) -> Tensor:
            shape = image_tensor(dataset, i).shape
            draw = generator(self.seed, "noise image", dataset.keys[i]).uniform(-1, 1, tuple(shape)).astype(np.float32)
            return torch.from_numpy(draw)

        def through_vae(i: int) -> Tensor:
            latents = evaluation_latents(dataset, i, self.seed)[None].to(module.device)
            return pixels_tensor(decode(module.vae, latents, float(module.vae.config.scaling_factor))[0])

        sources: list[tuple[str, Callable[[int], Tensor]]] = [
            ("real_vs_real", lambda i: image_tensor(dataset, i)),
            ("autoencoder", through_vae),
            ("noise", noise),
        ]
        if self.untrained:
            way, twin = self.sampling or module.sampling, untrained_twin(module.unet)
            drawn = self._draw(trainer, module, captions, dataset, way, unet=twin)
            sources.append(("untrained", partial(_drawn_tensor, drawn)))
        controls: dict[str, Any] = {"n": self.samples}
        for name, source in sources:
            for key, value in self._distances(self._measure(trainer, extractors, source, self.samples)).items():
                controls.setdefault(key, {})[name] = value
        if trainer.is_global_zero:
            update_controls(Path(trainer.default_root_dir), "fidelity", controls)


def _drawn_tensor(drawn: dict[int, np.ndarray], index: int) -> Tensor:
    return pixels_tensor(drawn[index])
