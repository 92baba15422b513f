"""The progress bar: images done of images wanted, images per second, time left, losses."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.evaluation import batch_size, evaluations, images_seen
from meddiff.common.progress import LIVE, Bar, is_terminal

#: What the bar shows of the evaluations.
SHOWN = {"grounding/macro_cnr": "CNR", "fidelity/fd_domain": "FD"}
#: What is logged under a longer name than a terminal has room for.
SHORT = {"train/loss": "loss", "val/loss": "val"}


class LightningBar(Bar, Tqdm):
    """The suite's bar, as one of Lightning's."""


class ImagesProgressBar(TQDMProgressBar):
    """Lightning's bar, counted in images of the whole run instead of batches of an endless epoch.

    Args:
        refresh_seconds: how often it is redrawn; null means 0.2 in a terminal, and in a log file a line every 2.5 s, of a
            long run fewer.
    """

    BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

    def __init__(self, refresh_seconds: float | None = None) -> None:
        super().__init__(refresh_rate=1)
        self.refresh_seconds = refresh_seconds
        self._drawn = 0.0

    def _bar(self, what: str, unit: str, below: int = 0, stays: bool = True) -> Tqdm:
        return LightningBar(
            desc=what,
            position=2 * self.process_position + below,
            disable=self.is_disabled,
            leave=stays,
            file=sys.stdout,
            smoothing=0.05,
            unit=unit,
            bar_format=self.BAR_FORMAT,
        )

    def init_train_tqdm(self) -> Tqdm:
        return self._bar("train", "img")

    def init_validation_tqdm(self) -> Tqdm:
        below = self.trainer.state.fn != "validate"
        return self._bar("validation", "batch", int(below), stays=not below)

    def init_test_tqdm(self) -> Tqdm:
        return self._bar("test", "batch")

    def init_predict_tqdm(self) -> Tqdm:
        return self._bar("predict", "batch")

    def on_validation_batch_start(self, trainer: Trainer, *others: Any, **named: Any) -> None:
        super().on_validation_batch_start(trainer, *others, **named)
        self.val_progress_bar.set_description_str("validation", refresh=False)  # there is one loader

    def on_test_batch_start(self, trainer: Trainer, *others: Any, **named: Any) -> None:
        super().on_test_batch_start(trainer, *others, **named)
        self.test_progress_bar.set_description_str("test", refresh=False)

    def on_predict_batch_start(self, trainer: Trainer, *others: Any, **named: Any) -> None:
        super().on_predict_batch_start(trainer, *others, **named)
        self.predict_progress_bar.set_description_str("predict", refresh=False)

    def on_train_start(self, trainer: Trainer, *modules: LightningModule) -> None:
        super().on_train_start(trainer, *modules)
        self._measure_from_here(trainer)  # a run resumed in mid-epoch never sees that epoch start

    def on_train_epoch_start(self, trainer: Trainer, *_: LightningModule) -> None:
        self._measure_from_here(trainer)

    def _measure_from_here(self, trainer: Trainer) -> None:
        bar = self.train_progress_bar
        done = images_seen(trainer)
        bar.reset(total=done + max(0, trainer.max_steps - trainer.global_step) * batch_size(trainer))
        # tqdm takes the rate from what is done after `initial`: a resumed run does not start at a million images a second.
        bar.initial = bar.n = bar.last_print_n = done
        bar.refresh()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        now = time.monotonic()
        bar = self.train_progress_bar
        done = images_seen(trainer)
        bar.n = done  # what is drawn for want of news is up to date, too
        if bar.disable or (now - self._drawn < self._seconds(bar) and done < (bar.total or 0)):
            return
        self._drawn = now
        bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)
        bar.refresh()

    def _seconds(self, bar: Tqdm) -> float:
        if self.refresh_seconds is not None:
            return self.refresh_seconds
        return LIVE if is_terminal(sys.stdout) else float(bar.mininterval)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        for one in evaluations(trainer):  # the two curves, as of their last evaluation
            metrics |= {short: one.latest[name] for name, short in SHOWN.items() if name in one.latest}
        return {
            SHORT.get(key, key): f"{value:.4g}" if isinstance(value, float) else value for key, value in metrics.items()
        }
