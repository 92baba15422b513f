"""The two curves side by side: one row an evaluation, the report, the figures in the progress bar."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.evaluation import EvaluationCallback, evaluations, images_seen, run_folder, shows_progress
from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.common.progress import doing, say
from meddiff.runs import names
from meddiff.runs.tables import read_table, write_table


class TradeoffCallback(Callback):
    """Collects what the evaluation callbacks found into ``RUN/tradeoff.csv`` and rewrites ``RUN/report.html``.

    One row for every number of images at which any evaluation ran; the file is replaced whole, so a kill leaves the old
    or the new one. A run that goes on from a checkpoint takes out the rows that lie after it. Source: own.

    Args:
        report: rewrite the report after every evaluation.
    """

    def __init__(self, report: bool = True) -> None:
        super().__init__()
        self.report = report
        self._written = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The evaluations must have run when their figures are collected: they come first."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # not declared
        late = [type(one).__name__ for one in callbacks[callbacks.index(self) :] if isinstance(one, EvaluationCallback)]
        if late:
            raise UserError(f"TradeoffCallback must stand after {', '.join(late)} in trainer.callbacks: move it down.")
        if not any(isinstance(one, EvaluationCallback) for one in callbacks):
            raise UserError("TradeoffCallback has nothing to collect: add GroundingCallback or FidelityCallback.")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        images = images_seen(trainer)
        if trainer.is_global_zero and images > 0:
            kept = [row for row in self._rows(trainer) if int(row["images"]) <= images]
            self._write(trainer, kept)
        self.collect(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        self.collect(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.collect(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.collect(trainer)
        if trainer.is_global_zero and self.report:
            self._report(trainer)  # the last losses, too

    def collect(self, trainer: Trainer) -> None:
        """Add a row if an evaluation has just run."""
        images = images_seen(trainer)
        fresh = [one for one in evaluations(trainer) if one.latest_images == images and one.latest]
        if not trainer.is_global_zero or not fresh or images == self._written:
            return
        row: dict[str, str | float] = {"step": trainer.global_step, "images": images}
        for one in fresh:
            row |= one.latest
        rows = [old for old in self._rows(trainer) if int(old["images"]) != images]
        self._write(trainer, [*rows, row])
        self._written = images
        if self.report:
            self._report(trainer)

    def _rows(self, trainer: Trainer) -> list[dict[str, str | float]]:
        return [dict(row) for row in read_table(run_folder(trainer) / names.TRADEOFF)]

    def _write(self, trainer: Trainer, rows: list[dict[str, str | float]]) -> None:
        rows = sorted(rows, key=lambda row: int(row["images"]))
        write_table(run_folder(trainer) / names.TRADEOFF, rows, ("step", "images"))

    def _report(self, trainer: Trainer) -> None:
        from meddiff.reports.page.report import write_report

        file = run_folder(trainer) / names.REPORT
        with doing(f"writing {file.name}", shows_progress(trainer), stays=False):
            try:
                write_report([run_folder(trainer)])
            except (UserError, OSError) as error:
                trouble = " ".join(str(error).split())
                say(
                    f"warning: {terminal(file)} was not written ({terminal(trouble)}): `lightning report RUN` makes it later"
                )
