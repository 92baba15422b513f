"""What the run folder says of its run: ``config.yaml``, and how to go on when something stopped it."""

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from callbacks.run_facts import tell_facts
from callbacks.tracking import JsonlLogger
from meddiff.cli.closing import ways_on
from meddiff.common.files import atomic_open, write_json
from meddiff.common.outside import terminal
from meddiff.runs import names
from meddiff.runs.whereabouts import whereabouts


def last_written(trainer: Trainer) -> str:
    """The checkpoint that a callback of the trainer wrote last; "" if none did."""
    found = (str(getattr(one, "_last_checkpoint_saved", "") or "") for one in trainer.checkpoint_callbacks)
    return next((file for file in found if file), "")


class RunConfig(SaveConfigCallback):
    """Writes the resolved configuration to ``config.yaml`` of the run folder and to the loggers."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        config.pop("config", None)
        config["base"] = None  # resolved: the file stands for itself
        config["ckpt_path"] = None
        config["trainer"]["default_root_dir"] = None
        name = names.CONFIG if stage == "fit" else f"config.{stage}.yaml"
        with atomic_open(Path(trainer.default_root_dir) / name, "w") as stream:
            yaml.safe_dump(config, stream, sort_keys=False, allow_unicode=True)
        if stage == "fit":
            folder = getattr(getattr(trainer, "datamodule", None), "folder", None)
            self._whereabouts = whereabouts(config, folder if isinstance(folder, str) else None)
            write_json(Path(trainer.default_root_dir) / names.WHEREABOUTS, self._whereabouts)
        for logger in trainer.loggers:
            tell_facts(logger, config)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint that is taken out of its run folder still knows where its autoencoder is."""
        checkpoint[names.NOTED] = getattr(self, "_whereabouts", {})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Whatever stopped the run: say how to go on from what is there."""
        lines = ways_on(Path(trainer.default_root_dir), last_written(trainer)) if trainer.is_global_zero else []
        if lines:
            print(f"\nstopped at step {trainer.global_step}; run folder: {terminal(trainer.default_root_dir)}")
            print("\n".join(f"  {line}" for line in lines))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that goes on in its own folder forgets the rows it is about to log again."""
        for logger in trainer.loggers:
            if isinstance(logger, JsonlLogger) and trainer.global_step > 0:
                logger.drop_after(trainer.global_step)
