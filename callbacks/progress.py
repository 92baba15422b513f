"""The progress bar: images done of images wanted, images per second, time left, losses."""

import sys
import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.evaluation import batch_size, evaluations, images_seen

#: What the bar shows of the evaluations.
SHOWN = {"grounding/macro_cnr": "CNR", "fidelity/fd_domain": "FD"}


class ImagesProgressBar(TQDMProgressBar):
    """Lightning's bar, counted in images of the whole run instead of batches of an endless epoch.

    Args:
        refresh_seconds: how often it is redrawn; null means 0.2 in a terminal and 4 in a log file.
    """

    BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

    def __init__(self, refresh_seconds: float | None = None) -> None:
        super().__init__(refresh_rate=1)
        self.live = sys.stdout.isatty()
        self.refresh_seconds = (0.2 if self.live else 4.0) if refresh_seconds is None else refresh_seconds
        self._drawn = 0.0

    def init_train_tqdm(self) -> Tqdm:
        return Tqdm(
            desc="train",
            position=2 * self.process_position,
            disable=self.is_disabled,
            leave=True,
            dynamic_ncols=self.live,
            ncols=None if self.live else 120,
            file=sys.stdout,
            smoothing=0.05,
            unit="img",
            bar_format=self.BAR_FORMAT,
        )

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
        if bar.disable or (now - self._drawn < self.refresh_seconds and done < (bar.total or 0)):
            return
        self._drawn = now
        bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)
        bar.update(done - bar.n)
        bar.refresh()

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        for one in evaluations(trainer):  # the two curves, as of their last evaluation
            metrics |= {short: one.latest[name] for name, short in SHOWN.items() if name in one.latest}
        return {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in metrics.items()}
