"""Images of ``lightning predict`` on disk."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from callbacks.media import write_png
from meddiff.common.outside import file_in, inside
from meddiff.runs import names


class ImageWriter(BasePredictionWriter):
    """Writes each drawn image to ``RUN/media/predict/KEY.png`` and its prompt to ``images.jsonl`` beside it.

    Under several processes each writes its own images; prompts go to ``images.jsonl`` (rank 0) or ``images.RANK.jsonl``.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Mapping[str, Any],
        batch_indices: Sequence[int] | None,
        batch: object,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        folder = inside(trainer.default_root_dir, f"{names.MEDIA}/{names.PREDICTED}")
        rows = []
        for key, prompt, image in zip(prediction["key"], prediction["prompt"], prediction["image"], strict=True):
            write_png(file_in(folder, f"{key}.png"), image)
            rows.append(json.dumps({"key": key, "prompt": prompt}, ensure_ascii=False) + "\n")
        name = "images.jsonl" if trainer.global_rank == 0 else f"images.{trainer.global_rank}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)  # none of the batch may have come out
        with file_in(folder, name).open("a", encoding="utf-8") as stream:
            stream.writelines(rows)
