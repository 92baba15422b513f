"""Do the words of a caption still point at the objects they name? MS-COCO's grounding, during training."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from callbacks.evaluation import EvaluationCallback, ranks_of, run_folder
from callbacks.grounding import PHRASES, phrase_table, write_grounding
from callbacks.media import Media
from meddiff.evaluation.coco import Coco, CocoOptions, coco_samples
from meddiff.evaluation.coco_priors import coco_priors
from meddiff.evaluation.measurement import Result
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.tables import update_controls
from meddiff.shards.dataset import LatentShardsDataset


class CocoGroundingCallback(EvaluationCallback):
    """Logs ``grounding/*`` of MS-COCO's captions, on instance masks: every class that a caption names.

    A row a (caption, class) goes to ``RUN/grounding/``; the location prior and two more predictors that never look at the
    image into ``RUN/controls.json``. The row of step 0 are the weights that training began from (the paper's "SDv2").

    Source: Dombrowski et al. 2024, Table 2; what is measured: :class:`meddiff.evaluation.coco.Coco`.

    Args:
        every_n_images: interval; also runs at step 0 and at the end.
        arguments: the fields of :class:`meddiff.evaluation.coco.CocoOptions`.
    """

    side = "grounding"

    def __init__(self, every_n_images: int, **arguments: Any) -> None:
        self.options = CocoOptions(**arguments)
        super().__init__(every_n_images, self.options.split)
        self.measurement: Coco = Coco(self.options)

    def measure(
        self, trainer: Trainer, model: LatentDiffusion, split: LatentShardsDataset, images: int
    ) -> Mapping[str, float]:
        if images == 0:
            samples, _ = coco_samples(split, self.options.preset, self.options.captioned)
            shown = self.measurement.show_progress and trainer.is_global_zero
            priors = coco_priors(split, samples, self.options.seed, ranks_of(trainer), shown)
            if trainer.is_global_zero:
                update_controls(run_folder(trainer), "grounding", priors)
        return super().measure(trainer, model, split, images)

    def write(self, trainer: Trainer, split: LatentShardsDataset, result: Result, images: int) -> None:
        """``RUN/grounding/IMAGES.csv``, and ``excluded.csv`` beside it."""
        write_grounding(trainer, result.tables["coco"], result.tables["coco_excluded"], images)
        self.media = Media(tables={PHRASES: phrase_table(result.tables["coco"])})
