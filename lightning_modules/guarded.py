"""What every module that trains here has in common: it stops at the first number that is not finite, and takes no weights
that do not fit. Source: own."""

from collections.abc import Iterator

import lightning as L
import torch
from torch import Tensor, nn

from lightning_modules.finite import FiniteWatch, any_process, largest_of
from meddiff.common.errors import UserError
from meddiff.models.weights.fitting import fit_state
from meddiff.models.weights.reading import State


class GuardedModule(L.LightningModule):
    """A LightningModule whose steps hand their loss to :meth:`watched`.

    A loss or gradient that is not finite ends the training before it changes a weight, on all processes together
    (:class:`lightning_modules.finite.FiniteWatch` says how); weights that are not finite are neither saved nor loaded.
    """

    def watched(self, loss: Tensor, keys: list[str]) -> Tensor:
        """The loss () of a micro-batch with these keys, as it is; it is looked at before the optimiser steps."""
        self._watch.add_loss(loss, keys)
        return loss

    @property
    def _watch(self) -> FiniteWatch:
        if "_finite_watch" not in self.__dict__:
            self.__dict__["_finite_watch"] = FiniteWatch()
        found: FiniteWatch = self.__dict__["_finite_watch"]
        return found

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at losses and gradients.

        Raises:
            UserError: one is not finite.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        self._watch.before_step(optimizer, self.trainer.global_step, scaler)

    def on_train_end(self) -> None:
        """Nothing of a training that broke is written as its result.

        Raises:
            UserError: the last step was not finite.
        """
        self.refuse_broken()

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """No checkpoint of a training that broke.

        Raises:
            UserError: a loss, gradient or weight is not finite.
        """
        self.refuse_broken()

    def refuse_broken(self) -> None:
        """Wait for the last step, and look at all weights; called by all processes together.

        Raises:
            UserError: something is not finite.
        """
        self._watch.settle()
        floats = [value for value in (*self.parameters(), *stored_buffers(self)) if value.is_floating_point()]
        if not floats:
            return
        bad = (~largest_of(floats, floats[0].device).isfinite()).float()
        any_process(bad)
        if bad > 0:
            raise UserError(
                f"Training stopped at step {self.trainer.global_step}: weights are not finite after this step and are not "
                f"saved: lower the learning rate, and go on from an earlier checkpoint."
            )

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """The weights under this module's names, prefixes of wrappers taken off.

        Raises:
            UserError: some are missing, extra, of another shape or type, or not finite.
        """
        state = checkpoint.get("state_dict")
        if not isinstance(state, dict) or any(hasattr(value, "to_local") for value in self.parameters()):
            return  # a checkpoint in parts, which its strategy reads
        checkpoint["state_dict"] = self.fitted(state)

    def fitted(self, state: State) -> State:
        """``state`` as ``load_state_dict`` takes it.

        Raises:
            UserError: it does not fit.
        """
        file = getattr(self._trainer, "ckpt_path", None)
        return fit_state(self.state_dict(), state, f"checkpoint {file}" if file else "the checkpoint")


def stored_buffers(module: nn.Module) -> Iterator[Tensor]:
    """The buffers that a checkpoint holds; others may be infinite on purpose (a causal mask is)."""
    for part in module.modules():
        for name, value in part._buffers.items():
            if value is not None and name not in part._non_persistent_buffers_set:
                yield value
