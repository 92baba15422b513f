"""Do the words still point at the right place? Phrase grounding by cross-attention, during training."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from callbacks.evaluation import EvaluationCallback, ranks_of, run_folder
from callbacks.media import Media, TextTable
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.common.outside import inside
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.measurement import Result, Table
from meddiff.evaluation.priors import grounding_priors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs import names
from meddiff.runs.tables import update_controls, write_table
from meddiff.runs.values import number
from meddiff.shards.dataset import LatentShardsDataset

#: Under which name the table of phrases is logged.
PHRASES = "grounding/phrases"


class GroundingCallback(EvaluationCallback):
    """Logs ``grounding/*``: CNR, pixel AUROC, Top-1 and mIoU of word maps on the boxes of a held-out split.

    Where exact masks are stored the same maps are scored on them (``grounding/mask_*``), on the confounders in the image
    (``grounding/confounder_cnr``) and on the other findings of the image (``grounding/own_beats_other``), beside the end
    token's map (``grounding/eos_*``). A row a phrase goes to ``RUN/grounding/``, the location prior and two more
    predictors that never look at the image into ``RUN/controls.json``. ``grounding/gain`` is what of the CNR cannot be had
    without grounding, between ``gain_low`` and ``gain_high``; beside it stands the gain under each of its controls (absent
    finding, another patient's box, mirrored box).

    Source: Dombrowski et al. 2024, Tables 1 and 3; what is measured: :class:`meddiff.evaluation.grounding.Grounding`.

    Args:
        every_n_images: interval; also runs at step 0 and at the end.
        gain: for the grounding gain so many phrases are asked for an absent finding, too, which takes as many passes more
            (balanced over classes); 0 measures no gain.
        arguments: the fields of :class:`meddiff.evaluation.grounding.GroundingOptions`.
    """

    side = "grounding"

    def __init__(self, every_n_images: int, gain: int = 64, **arguments: Any) -> None:
        self.options = GroundingOptions(**arguments)
        if gain < 0:
            raise UserError(f"GroundingCallback: gain is {gain}; it is a number of phrases, 0 to measure no gain.")
        super().__init__(every_n_images, self.options.split)
        self.measurement: Grounding = Grounding(self.options, gain=gain)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        dataset = self.dataset(trainer)
        labels = {label for i in range(len(dataset)) for label in dataset.metadata(i)["labels"]}
        missing = sorted(labels & set(FINDINGS) - set(self.options.queries))
        if missing:
            raise UserError(
                f"GroundingCallback: no query words for {', '.join(missing)}: add them to query_words, or take the "
                f"class out of the grounding split."
            )
        super().setup(trainer, pl_module, stage)

    def measure(
        self, trainer: Trainer, model: LatentDiffusion, split: LatentShardsDataset, images: int
    ) -> Mapping[str, float]:
        if images == 0:
            train = self.dataset(trainer, getattr(trainer, "datamodule").train_split)  # noqa: B009 (not declared)
            samples, _ = self.measurement.samples(split)
            shown = self.measurement.show_progress and trainer.is_global_zero
            queries, seed = list(self.options.queries), self.options.seed
            priors = grounding_priors(train, samples, queries, seed, ranks_of(trainer), shown)
            if trainer.is_global_zero:
                update_controls(run_folder(trainer), "grounding", priors)
        return super().measure(trainer, model, split, images)

    def write(self, trainer: Trainer, split: LatentShardsDataset, result: Result, images: int) -> None:
        """``RUN/grounding/IMAGES.csv``, and ``excluded.csv`` beside it."""
        write_grounding(trainer, result.tables["grounding"], result.tables["excluded"], images)
        self.media = Media(tables={PHRASES: phrase_table(result.tables["grounding"])})


def phrase_table(table: Table) -> TextTable:
    """What a reader wants of each phrase: its class, its text, how well the word's map fits, whether the hottest pixel does."""
    columns = ("class", "phrase", "CNR", "AUROC", "hit")
    rows: list[tuple[object, ...]] = []
    for row in sorted(table.rows, key=lambda row: (str(row["class"]), str(row["phrase"]), str(row["key"]))):
        cnr, auroc, hit = (number(row.get(name)) for name in ("cnr", "auroc", "top1"))
        rows.append((str(row["class"]), str(row["phrase"]), cnr, auroc, None if hit is None else hit > 0))
    return columns, rows


def write_grounding(trainer: Trainer, table: Table, excluded: Table, images: int) -> None:
    """The rows of an evaluation, and what was left out, into the run folder."""
    folder = inside(run_folder(trainer), names.GROUNDING)
    rows = sorted(table.rows, key=lambda row: (str(row["key"]), str(row["class"]), str(row["phrase"])))
    write_table(folder / f"{names.by_images(images)}.csv", rows, table.first)
    write_table(folder / names.EXCLUDED, excluded.rows, excluded.first, only=excluded.only)
