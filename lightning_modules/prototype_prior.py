"""Training a diffusion model of the prototype activations of a trained run."""

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_modules.guarded import GuardedModule
from lightning_modules.seeding import reseed, run_seed
from meddiff.common.draws import generator, torch_seed
from meddiff.common.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, check_ranges
from meddiff.evaluation.stored_activations import stored_activations
from meddiff.models.prototype_prior import PrototypePrior
from meddiff.runs.open_run import open_run


class PrototypePriorModule(GuardedModule):
    """How a :class:`meddiff.models.prototype_prior.PrototypePrior`, held as ``prior``, is trained on a run's activations.

    Activations of the run's training images are computed once, batched and without a graph, and kept in a file beside the
    run's checkpoints that is named after the weights and the data. Their mean and deviation, by which they are standardised,
    are stored with the prior. Each step's images and noise hang on (seed, step) alone, so a run that goes on ends with the
    same bits. Its data are :class:`datamodules.StepsDataModule`.

    Source: Weng et al., ICLR 2026, spec section A2.4; own where :mod:`meddiff.models.prototype_prior` says so.

    Args:
        run: of a :class:`PatronusModule`: its folder, or RUNS/NAME for its newest.
        width: of the hidden layers.
        depth: residual blocks.
        dropout: inside them.
        learning_rate: AdamW's; a cosine to zero at ``trainer.max_steps``.
        weight_decay: AdamW's.
        batch_size: rows of a step.
        number: of prototypes; null asks the run. A checkpoint says it, so that it loads without the run.

    Raises:
        UserError: a number out of its range.
    """

    def __init__(
        self,
        run: str,
        width: int = 512,
        depth: int = 4,
        dropout: float = 0.1,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        batch_size: int = 128,
        number: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.run, self.width, self.depth, self.dropout = run, width, depth, dropout
        self.learning_rate, self.weight_decay, self.batch_size = learning_rate, weight_decay, batch_size
        self.number = number
        check_ranges(
            "prototype prior",
            self,
            width=COUNT,
            depth=COUNT,
            batch_size=COUNT,
            dropout=SHARE,
            learning_rate=POSITIVE,
            weight_decay=NOT_NEGATIVE,
        )
        self.prior: PrototypePrior | None = None  # how many prototypes there are is the run's to say
        self._activations: Tensor | None = None

    def configure_model(self) -> None:
        """Build the prior for the run's prototypes from the run's seed.

        Raises:
            UserError: the run is not there, or is of a model without prototypes.
        """
        if self.prior is not None:
            return
        number = self.number or self.activations().shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(run_seed(), "init", "prior"))
            self.prior = PrototypePrior(number, self.width, self.depth, self.dropout)
        if self.number is None:
            self.prior.standardise(self.activations())

    def activations(self) -> Tensor:
        """(N, m) of the run's training images, computed or read once.

        Raises:
            UserError: as :meth:`configure_model`.
        """
        if self._activations is None:
            self._activations = torch.from_numpy(stored_activations(open_run(self.run)))
        return self._activations

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW under a cosine over ``trainer.max_steps``."""
        assert self.prior is not None
        optimizer = torch.optim.AdamW(self.prior.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Mean squared error of the predicted noise of rows that hang on (seed, step) alone."""
        assert self.prior is not None
        step, micro = self.trainer.global_step, batch_idx % self.trainer.accumulate_grad_batches
        address = (run_seed(), "prior", step, micro, self.global_rank)
        reseed(torch_seed(*address))  # dropout
        draws = generator(*address)
        places = draws.integers(len(self.activations()), size=self.batch_size)
        rows = self.activations()[torch.from_numpy(places)].to(self.device)  # (B, m)
        uniform = torch.from_numpy(draws.random(len(rows)))
        noise = torch.from_numpy(draws.standard_normal(rows.shape, dtype=np.float32)).to(rows.device)
        timesteps = self.prior.noise_schedule.timesteps(uniform).to(rows.device)
        loss = self.prior.loss(rows, noise, timesteps).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(rows))
        return self.watched(loss, [f"row {place}" for place in places])

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Say what the module is."""
        super().on_save_checkpoint(checkpoint)
        assert self.prior is not None
        checkpoint["architecture"] = {"number": self.prior.number}
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"
