"""A callback that writes down which samples each step really trained on."""

import json
import os
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from meddiff.shards.batches import TokenBatch


class KeyRecorder(Callback):
    """Appends {"step", "rank", "epoch", "keys"} to ``$KEY_RECORD.<rank>`` after every optimiser step."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: TokenBatch, batch_idx: int
    ) -> None:
        row = {"step": trainer.global_step, "rank": trainer.global_rank, "epoch": batch["epoch"], "keys": batch["key"]}
        with Path(f"{os.environ['KEY_RECORD']}.{trainer.global_rank}").open("a") as stream:
            stream.write(json.dumps(row) + "\n")
