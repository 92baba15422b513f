"""Says that a run starts, until its first bar: parts are read, data opened, loggers begun. Source: own."""

from contextlib import ExitStack

from lightning.pytorch import Callback, LightningModule, Trainer

from meddiff.common.progress import doing


class Starting(Callback):
    """A line with a clock between the making of the data and the first step or batch."""

    def __init__(self) -> None:
        self._line = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
        self._line.enter_context(doing("reading weights, opening data and loggers", shown, stays=False))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._line.close()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._line.close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._line.close()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._line.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._line.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._line.close()
