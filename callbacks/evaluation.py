"""What all evaluations during training share: when they run, and that training does not notice. Source: own."""

import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.gate import gate_of
from callbacks.media import Media
from callbacks.moments import log_moment
from meddiff.common.errors import UserError
from meddiff.common.progress import doing, say
from meddiff.evaluation.measurement import Measurement, Result
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.models.latent_diffusion import LatentDiffusion, model_of
from meddiff.runs.earlier_names import current_name, current_names
from meddiff.shards.batches import CountsImages
from meddiff.shards.dataset import LatentShardsDataset


def images_seen(trainer: Trainer) -> int:
    """Images the optimiser has consumed, over all ranks: the x-axis of every curve."""
    datamodule = getattr(trainer, "datamodule", None)
    if isinstance(datamodule, CountsImages):
        return int(datamodule.images_consumed)
    return int(trainer.global_step * batch_size(trainer))


def batch_size(trainer: Trainer) -> int:
    """Images of one optimiser step over all ranks; 1 where the data module does not say."""
    return int(getattr(getattr(trainer, "datamodule", None), "batch_size", 1))


def interval_in_steps(owner: Callback, every_n_images: int, trainer: Trainer) -> int:
    """Optimiser steps in ``every_n_images``.

    Raises:
        UserError: no multiple of the batch size.
    """
    size = batch_size(trainer)
    if every_n_images % size:
        raise UserError(
            f"{type(owner).__name__}: every_n_images is {every_n_images}, which is no multiple of the batch size "
            f"{size}: take {max(1, every_n_images // size) * size}."
        )
    return every_n_images // size


def ranks_of(trainer: Trainer) -> Ranks:
    """The trainer's processes, to share an evaluation among."""
    return Ranks(trainer.global_rank, trainer.world_size)


def run_folder(trainer: Trainer) -> Path:
    """Where the run writes."""
    return Path(trainer.default_root_dir)


class EvaluationCallback(Callback):
    """Measures at step 0, then every so many images, and at the end of training; once under ``validate``.

    Subclasses say what is measured and write what comes back; this class says when, logs the figures, hands them to
    ``trainer.callback_metrics`` (so that `ModelCheckpoint` and `EarlyStopping` can monitor them), keeps them for the
    trade-off row, and leaves gradients, modes, random generators and attention processors as it found them.

    Args:
        every_n_images: interval in images of the whole run, a multiple of the batch size.
        split: of the shards, which is evaluated.
    """

    #: What the logged names begin with.
    side: str = ""
    #: What is measured; None where a subclass only draws pictures.
    measurement: Measurement | None = None

    def __init__(self, every_n_images: int, split: str) -> None:
        super().__init__()
        if every_n_images <= 0:
            raise UserError(f"{type(self).__name__}: every_n_images is {every_n_images}; it must be positive.")
        self.every_n_images, self.split = every_n_images, split
        self.latest: dict[str, float] = {}
        self.latest_images = -1
        self.media = Media()
        self._unlogged = False
        self._logged: list[tuple[int, Mapping[str, float]]] = []  # by whoever is the last evaluation of a trainer
        self.seconds = 0.0
        self._last_images = 0

    @classmethod
    def preflight_splits(cls, sizes: Mapping[str, int | None], **init_args: object) -> list[str]:
        """One sentence where the split that is measured is not there or too small, before anything is made or read.

        Args:
            sizes: split -> number of its samples, None where that is not known.
        """
        try:
            one = cls(**init_args)  # type: ignore[arg-type]  # jsonargparse has checked them
        except UserError as error:
            return [str(error)]
        have = sizes.get(one.split, 0)
        if have is None:
            return []
        if not have:
            there = ", ".join(sorted(name for name, count in sizes.items() if count != 0)) or "none"
            return [f"{cls.__name__}: there are no samples of split {one.split!r} (there are: {there}): name another."]
        problem = one.size_problem(have)
        return [] if problem is None else [f"{cls.__name__}: {problem}"]

    # ---- for subclasses -----------------------------------------------------------------------------------------

    def measure(
        self, trainer: Trainer, model: LatentDiffusion, split: LatentShardsDataset, images: int
    ) -> Mapping[str, float]:
        """The figures, the same on every rank, under the names they are logged by."""
        if self.measurement is None:
            return {}
        result = self.measurement.run(model, split, None, ranks_of(trainer))
        if trainer.is_global_zero:
            self.write(trainer, split, result, images)
        return {f"{self.side}/{name}": value for name, value in result.figures.items()}

    def size_problem(self, have: int) -> str | None:
        """A sentence where a split of so many samples is too small."""
        return None

    def write(self, trainer: Trainer, split: LatentShardsDataset, result: Result, images: int) -> None:
        """Put what was found into the run folder; rank 0 only."""

    def forward_passes(self, trainer: Trainer, module: LightningModule) -> float:
        """U-Net forward passes of one evaluation over all ranks, to state its cost before it is paid."""
        return 0.0 if self.measurement is None else self.measurement.cost(model_of(module), self.dataset(trainer))

    def dataset(self, trainer: Trainer, split: str | None = None) -> LatentShardsDataset:
        """The stored samples of a split, by default of the one that is evaluated.

        Raises:
            UserError: the data module has none (streamed shards, images).
        """
        datamodule = getattr(trainer, "datamodule", None)
        if datamodule is None or not hasattr(datamodule, "dataset"):
            raise UserError(f"{type(self).__name__} needs a data module over latent shards (LatentShardsDataModule).")
        found: LatentShardsDataset = datamodule.dataset(split or self.split)
        return found

    # ---- when ---------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say what is wrong before training starts; from here on loggers take what they may."""
        gate_of(trainer)
        if stage == "fit":
            interval_in_steps(self, self.every_n_images, trainer)
        if self.measurement is not None:
            self.measurement.show_progress = shows_progress(trainer)
            self.measurement.check(self.dataset(trainer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if evaluations(trainer)[0] is self:
            print_cost(trainer, pl_module)
        self._last_images = images_seen(trainer)
        if self._last_images == 0 and not getattr(trainer, "fast_dev_run", False):
            self.run(trainer, pl_module)
        else:
            self._tell(trainer)  # of a run that goes on
        self._log(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        images = images_seen(trainer)
        # a micro-batch that does not end an optimiser step leaves the count as it was
        due = images // self.every_n_images > self._last_images // self.every_n_images
        self._last_images = images
        if due:
            self.run(trainer, pl_module)
        self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stopped = trainer.interrupted or getattr(trainer, "fast_dev_run", False)
        if not stopped and self.latest_images != images_seen(trainer):
            self.run(trainer, pl_module)
        self._log(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:  # `lightning validate`, not the validation of a fit
            self.run(trainer, pl_module)
        self._log(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """What was measured before the next evaluation broke is not lost; a disk that is full takes nothing more."""
        with suppress(OSError):
            self._log(trainer)

    def run(self, trainer: Trainer, module: LightningModule) -> None:
        """Evaluate now and remember; it is logged together with what else is measured at this moment."""
        start = time.monotonic()
        images = images_seen(trainer)
        what = self.side or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__.removesuffix("Callback")).lower()
        said = doing(f"evaluating {what} after {images:,} images", shows_progress(trainer), stays=None)
        with said, undisturbed(module):
            self.latest = dict(self.measure(trainer, model_of(module), self.dataset(trainer), images))
        self.latest_images = images
        self.seconds += time.monotonic() - start
        self._tell(trainer)
        self._unlogged = True

    def _log(self, trainer: Trainer) -> None:
        """One row for all that was measured since the last one; written by the last evaluation, when all had their turn."""
        all_of_them = evaluations(trainer)
        fresh = [one for one in all_of_them if one._unlogged]
        if all_of_them[-1] is not self or not fresh:
            return
        start = time.monotonic()
        figures = {name: value for one in fresh for name, value in one.latest.items()}
        media = [one.media for one in fresh]
        for one in fresh:
            one._unlogged, one.media = False, Media()
        if trainer.is_global_zero:
            log_moment(trainer, images_seen(trainer), figures, media, self._logged)
        self.seconds += time.monotonic() - start

    def _tell(self, trainer: Trainer) -> None:
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.latest.items()})
        for one in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it without declaring it
            wanted = getattr(one, "monitor", None)  # a config of earlier days may watch what has another name now
            if isinstance(wanted, str) and wanted not in self.latest and current_name(wanted) in self.latest:
                trainer.callback_metrics[wanted] = torch.tensor(self.latest[current_name(wanted)])

    def state_dict(self) -> dict[str, object]:
        """The latest figures: a resumed run can monitor them before its next evaluation."""
        return {"latest": dict(self.latest)}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        latest = state_dict.get("latest")
        self.latest = current_names(latest) if isinstance(latest, dict) else {}


def shows_progress(trainer: Trainer) -> bool:
    """Whether this process draws bars: the first, unless bars were switched off."""
    return bool(trainer.is_global_zero) and trainer.progress_bar_callback is not None


def evaluations(trainer: Trainer) -> list[EvaluationCallback]:
    """The evaluation callbacks of a trainer, in order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it without declaring it
    return [one for one in callbacks if isinstance(one, EvaluationCallback)]


def evaluation_share(passes: float, every_n_images: int, total_images: int) -> float:
    """Computing of one callback's evaluations as a share of training's.

    Args:
        passes: U-Net forward passes of one evaluation; an image of training costs three.
        every_n_images: the interval; step 0 and the end are evaluated too.
        total_images: of the whole run.
    """
    times = 1 + math.ceil(total_images / every_n_images)
    return times * passes / (3.0 * total_images)


def print_cost(trainer: Trainer, module: LightningModule) -> None:
    """Say before it is paid what the evaluations cost."""
    total = trainer.max_steps * batch_size(trainer)
    passes = {one: one.forward_passes(trainer, module) for one in evaluations(trainer)}
    if trainer.is_global_zero and total > 0 and sum(passes.values()) > 0:
        share = sum(evaluation_share(number, one.every_n_images, total) for one, number in passes.items())
        say(
            f"evaluations: {sum(passes.values()):,.0f} U-Net forward passes each time, "
            f"{100 * share:.1f} % of the computing of training"
        )
