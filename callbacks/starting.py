"""Says that a run starts, until its first bar: parts are read, data opened, loggers begun. Source: own."""

from contextlib import ExitStack

from lightning.pytorch import Callback, LightningModule, Trainer

from meddiff.common.progress import doing


class Starting(Callback):
    """A line with a clock from the making of the data to the first step or batch; bars of data that are made stand below it."""

    def __init__(self) -> None:
        self._line = ExitStack()

    def begin(self, shown: bool) -> None:
        """Called before the trainer is: it has opened its loggers and read the data when it first tells its callbacks.

        Args:
            shown: of the processes one.
        """
        self._line.enter_context(doing("reading weights, opening data and loggers", shown, stays=False))

    def end(self) -> None:
        """The line goes, at the latest when the command ends."""
        self._line.close()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end()

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
