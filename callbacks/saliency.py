"""When in training does the model know, at which timestep, where a finding is? Maps by timestep of a few fixed images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from callbacks.evaluation import EvaluationCallback, ranks_of, run_folder
from callbacks.media import Media, Picture
from meddiff.common.outside import inside
from meddiff.evaluation.measurement import Result, Row
from meddiff.evaluation.saliency import Saliency
from meddiff.evaluation.saliency_media import sheets_of, write_pictures
from meddiff.evaluation.saliency_scores import MICRO
from meddiff.evaluation.saliency_tools import ALL
from meddiff.evaluation.saliency_units import SaliencyOptions
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs import names
from meddiff.runs.tables import write_table
from meddiff.shards.dataset import LatentShardsDataset

#: Figures that are logged at every timestep.
LOGGED = ("cnr", "gain/absent")


class DenoisingSaliencyCallback(EvaluationCallback):
    """Logs ``saliency/TOOL/FIGURE/tTIMESTEP``: where the maps of each tool point, timestep by timestep, on a few fixed phrases.

    Rows go to ``RUN/saliency/IMAGES.csv``, the maps of some phrases to ``RUN/media/saliency`` for the report's slider over
    timesteps, and as panels to the loggers. The budget is small: so few phrases show a course, and no result (``lightning
    explain`` measures all of them). Source: own; the tools: Park, Ju and Lee (2024).

    Args:
        every_n_images: interval; also runs at step 0 and at the end.
        samples: phrases, the same at every evaluation.
        timesteps: how many of the paper's 40 timesteps.
        shown: phrases whose maps are drawn.
        slow_samples: phrases for tools that take hundreds of passes for one map.
        slow_timesteps: timesteps for them.
        arguments: the other fields of :class:`meddiff.evaluation.saliency_units.SaliencyOptions`.
    """

    side = "saliency"

    def __init__(
        self,
        every_n_images: int,
        samples: int = 8,
        timesteps: int = 4,
        shown: int = 4,
        slow_samples: int = 4,
        slow_timesteps: int = 2,
        **arguments: Any,
    ) -> None:
        self.options = SaliencyOptions(
            samples=samples,
            timesteps=timesteps,
            shown=shown,
            slow_samples=slow_samples,
            slow_timesteps=slow_timesteps,
            **arguments,
        )
        super().__init__(every_n_images, self.options.split)
        self.measurement: Saliency = Saliency(self.options)

    def measure(
        self, trainer: Trainer, model: LatentDiffusion, split: LatentShardsDataset, images: int
    ) -> Mapping[str, float]:
        result = self.measurement.run(model, split, None, ranks_of(trainer))
        if trainer.is_global_zero:
            self.write(trainer, split, result, images)
        return {f"{self.side}/{name}": value for name, value in by_timestep(result.tables["saliency"].rows).items()}

    def write(self, trainer: Trainer, split: LatentShardsDataset, result: Result, images: int) -> None:
        """``RUN/saliency/IMAGES.csv`` and the pictures."""
        table = result.tables["saliency"]
        first = [name for name in table.first if name not in ("model", "seed", "images")]
        folder = inside(run_folder(trainer), names.SALIENCY)
        write_table(folder / f"{names.by_images(images)}.csv", table.rows, first)
        media = inside(run_folder(trainer), f"{names.MEDIA}/{names.SALIENCY}")
        write_pictures(media, images, self.measurement, split)
        self.media = Media(
            {
                f"{self.side}/{name}": [Picture(np.asarray(sheet), f"{name.replace('_', ' ')}, {images:,} images")]
                for name, sheet in sheets_of(self.measurement, split).items()
            }
        )


def by_timestep(rows: Sequence[Row]) -> dict[str, float]:
    """``TOOL/cnr/t741``: the curves as numbers with names of their own."""
    found: dict[str, float] = {}
    for row in rows:
        whole = row["layer"] == ALL and row["class"] == MICRO and row["figure"] in LOGGED
        if whole and row.get("timestep") is not None and row["value"] is not None:
            figure = str(row["figure"]).replace("/", "_")
            found[f"{row['tool']}/{figure}/t{row['timestep']}"] = float(row["value"])
    return found
