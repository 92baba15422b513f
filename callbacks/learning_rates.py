"""The learning rate of each part that trains, in the rows of the losses. Source: own."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class LearningRates(Callback):
    """Logs ``learning_rate/GROUP`` (``unet``, ``text_encoder``) in every row that is logged of training.

    Lightning's own monitor writes rows of its own, which have no ``images``: their curves would have no axis.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Before the step: the rate that it takes."""
        if not trainer._logger_connector.should_update_logs:  # as Lightning's own monitor asks
            return
        for optimizer in trainer.optimizers:
            for place, group in enumerate(optimizer.param_groups):
                name = str(group.get("name", place))
                # a float would be copied to the device, and the host would wait for all that is queued there
                rate = torch.full((), float(group["lr"]), dtype=torch.float32, device=pl_module.device)
                pl_module.log(f"learning_rate/{name}", rate, on_step=True, on_epoch=False, batch_size=1)
