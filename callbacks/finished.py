"""A training says itself that it has ended as it should: an exit code of 0 says less. Source: own.

Lightning ends with 0 where it was told to stop (SIGTERM), and a launcher of many runs must tell the two apart.
"""

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.evaluation import images_seen, run_folder
from meddiff.common.files import write_json
from meddiff.common.outside import own_file
from meddiff.runs import names


class FinishedMark(Callback):
    """Writes ``RUN/finished.json`` when training, its last evaluations and its checkpoint are done; always on.

    A run that goes on loses it until it ends again.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            (run_folder(trainer) / names.FINISHED).unlink(missing_ok=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            written = own_file(run_folder(trainer) / names.FINISHED)
            write_json(written, {"step": trainer.global_step, "images": images_seen(trainer)})
