"""What do prototypes become while the model trains? A probe, and a gallery of reconstructions and of raised prototypes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray

from callbacks.evaluation import EvaluationCallback, ranks_of, run_folder
from callbacks.media import Media, Picture
from meddiff.attribution.inversion import ddim_grid, denoise
from meddiff.common.outside import inside
from meddiff.evaluation.prototype_inputs import inputs_of, patronus, untrained_encoder
from meddiff.evaluation.prototype_media import sheet_of, shown_prototypes, write_pictures
from meddiff.evaluation.prototype_pictures import some_of
from meddiff.evaluation.prototypes import Prototypes, PrototypesOptions
from meddiff.models.latent_diffusion import LatentDiffusion, model_of
from meddiff.models.patronus import Patronus
from meddiff.models.sampling import initial_noise
from meddiff.runs import names
from meddiff.shards.dataset import LatentShardsDataset

#: Figures of grounding are logged in the room of grounding.
GROUNDED = "prototype_"


class PrototypesCallback(EvaluationCallback):
    """Logs ``prototypes/FIGURE`` (probe, dead share, names, reconstruction) and pictures of a few prototypes of a Patronus.

    Pictures go to ``RUN/media/prototypes`` for the report's gallery, and as sheets to the loggers: prototypes raised, and
    images drawn again from fresh noise under their own activations. Few images show a course, and no result: that is what
    ``lightning evaluate prototypes`` is for. Source: own (spec/patronus_and_visual_analysis.md, A4, C1).

    Args:
        every_n_images: interval; also runs at step 0 and at the end.
        split: held-out split of the shards.
        samples: images that are encoded for probe and names.
        shown: prototypes that are raised.
        views: images that each is raised in.
        steps: timesteps of inversion and of drawing.
        reconstructed: images that are drawn again.
        gallery: of them, so many are shown.
        arguments: the other fields of :class:`meddiff.evaluation.prototypes.PrototypesOptions`; no Frechet distances.
    """

    side = "prototypes"

    def __init__(
        self,
        every_n_images: int,
        split: str = "val",
        samples: int = 400,
        shown: int = 6,
        views: int = 4,
        steps: int = 10,
        reconstructed: int = 16,
        gallery: int = 8,
        **arguments: Any,
    ) -> None:
        self.options = PrototypesOptions(
            split=split,
            samples=samples,
            shown=shown,
            views=views,
            steps=steps,
            reconstructed=reconstructed,
            drawn=0,
            **arguments,
        )
        self.gallery = gallery
        super().__init__(every_n_images, split)
        self.measurement: Prototypes = Prototypes(self.options)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As of every evaluation; a model without prototypes is refused, now that it is built."""
        patronus(model_of(pl_module))
        super().on_train_start(trainer, pl_module)

    def measure(
        self, trainer: Trainer, model: LatentDiffusion, split: LatentShardsDataset, images: int
    ) -> Mapping[str, float]:
        found = patronus(model)
        boxed, beside = self.options.grounding, self.measurement.beside
        if beside.untrained is None:
            beside.untrained = untrained_encoder(found.prototypes)
        if boxed is not None and trainer.datamodule.has_split(boxed):  # type: ignore[attr-defined]  # not declared
            beside.grounding = self.dataset(trainer, boxed)
        result = self.measurement.run(found, split, None, ranks_of(trainer))
        if trainer.is_global_zero:
            shown = shown_prototypes(found, split, self.measurement)
            folder = inside(run_folder(trainer), f"{names.MEDIA}/{names.PROTOTYPES}")
            write_pictures(folder, images, shown, result)
            sheet = sheet_of(shown, result)
            pictures = {"reconstructions": redrawn(found, split, self.gallery, self.options.steps, self.options.seed)}
            if sheet is not None:
                pictures["raised"] = np.asarray(sheet)
            self.media = Media(
                {
                    f"{self.side}/{name}": [Picture(pixels, f"{name}, {images:,} images")]
                    for name, pixels in pictures.items()
                }
            )
        return {
            f"grounding/{name}" if name.startswith(GROUNDED) else f"{self.side}/{name}": value
            for name, value in result.figures.items()
        }


def redrawn(model: Patronus, split: LatentShardsDataset, number: int, steps: int, seed: int) -> NDArray[np.uint8]:
    """Images above, and below them what is drawn of their activations from fresh noise: uint8 (2 H, number W, 3)."""
    some, inputs = some_of(split, number, seed, "reconstructed"), inputs_of(split, seed)
    x0 = torch.stack([inputs(index) for index in some]).to(model.device)  # (n, C, h, w)
    with torch.no_grad():
        condition = model.conditioning(model.activations(x0))
    noise = initial_noise(seed, [split.keys[index] for index in some], model.latent_shape).to(model.device)
    timesteps = ddim_grid(steps, len(model.noise_schedule.alphas_cumprod))
    rows = [model.to_images(x0), model.to_images(denoise(model, noise, condition, timesteps))]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
