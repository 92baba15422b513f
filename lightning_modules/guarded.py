"""What every module that trains here has in common: it leaves out steps that are not finite, and takes no weights that do
not fit. Source: own."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_modules.finite import FiniteWatch, any_process, largest_of
from meddiff.common.errors import UserError
from meddiff.models.pieces import is_sharded
from meddiff.models.weights.fitting import fit_state
from meddiff.models.weights.reading import State
from meddiff.runs import names
from meddiff.runs.skipped_steps import note_skipped
from meddiff.shards.batches import CountsImages


class GuardedModule(L.LightningModule):
    """A LightningModule whose steps hand their loss to :meth:`watched`.

    A step whose loss or gradient is not finite changes no weight, on any process: it is left out, counted
    (``train/skipped_steps``, once there are any) and written down with its sample keys (``RUN/skipped_steps.jsonl``).
    Step count, learning rate and the stream of images go on, as they do where a loss scaler leaves out a step. Too many in
    a row end the training (:class:`lightning_modules.finite.FiniteWatch` says how); weights that are not finite are neither
    saved nor loaded.

    Attributes:
        stop_after_skipped_steps: so many in a row; 1 stops at the first.
    """

    stop_after_skipped_steps: int = 10

    def watched(self, loss: Tensor, keys: list[str]) -> Tensor:
        """The loss () of a micro-batch with these keys, as it is; it is looked at before the optimiser steps."""
        self._watch.add_loss(loss, keys)
        if self._watch.skipped:
            self.log("train/skipped_steps", float(self._watch.skipped), batch_size=len(keys))
        return loss

    def log_position(self, batch_size: int) -> None:
        """``images``: what the optimiser has seen when a row is written, the x-axis of every curve."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if isinstance(datamodule, CountsImages):
            # a float would be copied to the device, and the host would wait for all that is queued there
            images = torch.full((), float(datamodule.images_consumed), device=self.device)
            self.log("images", images, batch_size=batch_size)

    @property
    def _watch(self) -> FiniteWatch:
        if "_finite_watch" not in self.__dict__:
            self.__dict__["_finite_watch"] = FiniteWatch(self.stop_after_skipped_steps)
        found: FiniteWatch = self.__dict__["_finite_watch"]
        return found

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at losses and gradients.

        Raises:
            UserError: too many steps in a row were not finite.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        try:
            self._watch.before_step(optimizer, self.trainer.global_step, scaler)
        finally:
            self._tell_skipped()

    def _tell_skipped(self) -> None:
        """Write down and say which steps were left out since this was asked last."""
        news, self._watch.news = self._watch.news, []
        if not news:
            return
        if self.trainer.is_global_zero:
            note_skipped(Path(self.trainer.default_root_dir), [vars(one) for one in news])
        for one in news:
            rank_zero_warn(
                f"Step {one.step} was left out: {one.what} is not finite in a batch of {len(one.keys)} samples, whose keys "
                f"stand in {names.SKIPPED}."
            )

    def on_train_end(self) -> None:
        """Nothing of a training that broke is written as its result.

        Raises:
            UserError: the last steps were not finite.
        """
        self.refuse_broken()
        self._watch.at_end()

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """No checkpoint of a training that broke; others say how many steps were left out.

        Raises:
            UserError: too many steps in a row, or a weight, are not finite.
        """
        self.refuse_broken()
        checkpoint["skipped_steps"] = self._watch.state()

    def refuse_broken(self) -> None:
        """Wait for the last step, and look at all weights; called by all processes together.

        Raises:
            UserError: something is not finite.
        """
        try:
            self._watch.settle()
        finally:
            self._tell_skipped()
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
        if (skipped := checkpoint.get("skipped_steps")) is not None:
            self._watch.restore(cast(dict[str, int], skipped))
        state = checkpoint.get("state_dict")
        if not isinstance(state, dict) or is_sharded(self):
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
