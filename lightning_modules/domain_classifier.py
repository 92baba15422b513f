"""The classifier of the embedded cohort, trained by the suite itself."""

from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics.classification import MultilabelAUROC

from lightning_modules.guarded import GuardedModule
from meddiff.common.errors import refuse
from meddiff.common.findings import FINDINGS
from meddiff.common.ranges import POSITIVE, SHARE, check_ranges, not_finite
from meddiff.models.domain_classifier import build_classifier, save_classifier, xrv_input
from meddiff.models.weights.sources import Config
from meddiff.shards.batches import ImageBatch


class DomainClassifierModule(GuardedModule):
    """torchxrayvision's DenseNet on the eight findings, multi-label.

    At the end of a fit ``RUN/classifier`` holds the weights and, in ``config.json``, the held-out AUROC.

    Args:
        network: arguments of ``torchxrayvision.models.DenseNet``.
        learning_rate: peak of a one-cycle cosine (AdamW).
        label_smoothing: moves the targets this far towards 0.5.

    Raises:
        UserError: a number that is not finite or out of its range.
    """

    def __init__(self, network: Config, learning_rate: float = 3e-3, label_smoothing: float = 0.02) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network, self.learning_rate, self.label_smoothing = network, learning_rate, label_smoothing
        check_ranges("domain classifier", self, learning_rate=POSITIVE, label_smoothing=SHARE)
        refuse(not_finite(network, "network"))
        self.auroc = MultilabelAUROC(num_labels=len(FINDINGS), average=None)

    def configure_model(self) -> None:
        """Build the network from the run's seed."""
        if not hasattr(self, "classifier"):
            self.classifier = build_classifier(self.network, list(FINDINGS))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW under a one-cycle cosine over ``trainer.max_steps``."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.trainer.max_steps + 1, pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def targets(self, labels: list[list[str]]) -> Tensor:
        """(B, 8) float 0/1."""
        return torch.tensor([[float(name in names) for name in FINDINGS] for names in labels], device=self.device)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """batch["image"]: (B, 3, H, W) in [-1, 1]."""
        targets, smooth = self.targets(batch["labels"]), self.label_smoothing
        logits = self.classifier(xrv_input(batch["image"]))  # (B, 8)
        loss = F.binary_cross_entropy_with_logits(logits, targets * (1 - smooth) + 0.5 * smooth)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(targets))
        return self.watched(loss, batch["key"])

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """AUROC of each finding on held-out phantoms."""
        self.auroc.update(self.classifier(xrv_input(batch["image"])), self.targets(batch["labels"]).long())

    def on_validation_epoch_end(self) -> None:
        values = self.auroc.compute()
        self.auroc.reset()
        named = {f"val/auroc/{name}": value for name, value in zip(FINDINGS, values, strict=True)}
        self.log_dict({**named, "val/auroc": values.mean()}, prog_bar=False)

    def on_fit_end(self) -> None:
        """Write ``RUN/classifier``."""
        if self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", False):
            facts = {k: round(float(v), 4) for k, v in self.trainer.callback_metrics.items() if k.startswith("val/")}
            folder = Path(self.trainer.default_root_dir) / "classifier"
            save_classifier(self.classifier, dict(self.network), folder, held_out=facts)
