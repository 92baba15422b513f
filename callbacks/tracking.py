"""Where numbers go: W&B, offline unless the user is logged in, and ``metrics.jsonl`` in the run folder."""

import json
import logging
import math
import os
import re
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from callbacks.wandb_axis import draw_over_images
from callbacks.wandb_trouble import give_up, unless_in_trouble
from meddiff.common.files import atomic_open, make_folder
from meddiff.common.outside import own_file
from meddiff.common.progress import say
from meddiff.common.wandb_server import logged_in_to_wandb, server_trouble, why_not
from meddiff.runs import names
from meddiff.runs.metrics_file import end_cut_line, read_metrics

if TYPE_CHECKING:
    from wandb import Run

#: Seconds that W&B may take to begin a run, after its server has answered within :data:`meddiff.common.wandb_server.PATIENCE`;
#: its own 90 are too long to wait with a training. Together they are less than ten.
INIT_TIMEOUT = 5.0
#: Seconds that W&B may take at the end for what a server has not taken yet; its own rule is to wait for ever.
FINISH_TIMEOUT = 300.0
#: What W&B takes as the id of a run.
ID_OF_WANDB = r"[^:;,#?/'\s]{1,128}"


class JsonlLogger(Logger):
    """Appends every logged row to ``RUN/metrics.jsonl``: ``{"step": .., "time": .., "train/loss": ..}``.

    The source of every report (W&B's offline log is a binary format of its own). When a run goes on from a checkpoint,
    rows that lie after it are taken out first, so that the file reads as if the run had never been stopped.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(run_dir) / names.METRICS
        self._mended = False

    @property
    def name(self) -> str:
        return self.path.parent.parent.name

    @property
    def version(self) -> str:
        return self.path.parent.name

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, object] | Namespace, *args: object, **kwargs: object) -> None:
        """Nothing: the run folder has config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row: dict[str, object] = {"step": step, "time": round(time.time(), 3)}
        # JSON has no NaN; null says "was computed and is not a number".
        row.update({key: value if math.isfinite(value) else None for key, value in metrics.items()})
        make_folder(self.path.parent)
        if not self._mended:
            end_cut_line(own_file(self.path))
            self._mended = True
        with own_file(self.path).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    @rank_zero_only
    def sync(self) -> None:
        """Flush the rows to the disk: a power cut keeps what a checkpoint builds on."""
        if self.path.is_file():
            with self.path.open("rb") as stream:
                os.fsync(stream.fileno())

    @rank_zero_only
    def drop_after(self, step: int) -> None:
        """Take out rows of steps that will be run again: those at ``step`` and later (rows count steps from 0)."""
        rows = read_metrics(self.path)
        kept = [row for row in rows if (at := row.get("step")) is None or at < step]
        if len(kept) < len(rows):
            with atomic_open(self.path, "w") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in kept)


def default_loggers(run_dir: Path, name: str, job_type: str | None = None) -> list[Logger]:
    """W&B and metrics.jsonl; online when WANDB_MODE says so, or says nothing and the user is logged in.

    A server that does not answer, or not to this key, keeps nobody from training: W&B is offline then, and a line says so.

    Args:
        run_dir: the run folder; W&B's files go into its ``wandb/``.
        name: name shown in W&B.
        job_type: what the run does, as W&B shows it; its verb.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return [JsonlLogger(run_dir)]
    online = mode == "online" or (mode is None and logged_in_to_wandb())
    if online and getattr(rank_zero_only, "rank", 0) == 0 and (trouble := server_trouble()):
        say(trouble)
        online = False
    return [RunWandbLogger(run_dir, name, not online, job_type), JsonlLogger(run_dir)]


def known_id(file: Path) -> str | None:
    """The id a run had before; None where no file holds one (a cut or empty file holds none)."""
    text = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""
    return text if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) else None


class RunWandbLogger(WandbLogger):
    """W&B in the run folder, under an id that a continued run finds again; its curves are drawn over ``images``.

    ``WANDB_NAME``, ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_RUN_GROUP``, ``WANDB_JOB_TYPE``, ``WANDB_TAGS``,
    ``WANDB_NOTES``, and what ``wandb agent`` sets (``WANDB_RUN_ID``, ``WANDB_SWEEP_ID``, ``WANDB_SWEEP_PARAM_PATH``) win over
    what is said here.

    Args:
        run_dir: the run folder.
        name: name of the run, and of the group that W&B shows together: seeds of one configuration.
        offline: write to disk only (``wandb sync RUN/wandb/offline-run-*`` uploads later).
        job_type: what the run does.
    """

    def __init__(
        self, run_dir: str | os.PathLike[str], name: str, offline: bool = True, job_type: str | None = None
    ) -> None:
        import wandb

        folder = Path(run_dir)
        id_file = folder / names.WANDB_ID
        run_id = known_id(id_file)  # W&B makes names of folders of it
        given = os.environ.get("WANDB_RUN_ID")
        if given and not re.fullmatch(ID_OF_WANDB, given):
            say(f"WANDB_RUN_ID is {given!r}, which cannot be an id (no :;,#?/' and no blanks): W&B gets one of its own")
            del os.environ["WANDB_RUN_ID"]
        logging.getLogger("wandb").setLevel(logging.ERROR)
        settings = wandb.Settings(silent=True, console="off", disable_git=True, init_timeout=INIT_TIMEOUT)
        if "WANDB_FINISH_TIMEOUT" not in os.environ and "finish_timeout" in wandb.Settings.model_fields:
            settings.finish_timeout = FINISH_TIMEOUT
        super().__init__(
            name=os.environ.get("WANDB_NAME") or f"{name}/{folder.name}",
            group=os.environ.get("WANDB_RUN_GROUP") or name,
            job_type=os.environ.get("WANDB_JOB_TYPE") or job_type,
            save_dir=str(folder),
            id=run_id,
            project=os.environ.get("WANDB_PROJECT", "meddiff-tradeoff"),
            offline=offline,
            resume="allow" if run_id else None,
            # Said outright: an explicit Settings() would otherwise bring its own default, online.
            mode="offline" if offline else "online",
            settings=settings,
        )
        self._wandb_init.pop("anonymous", None)  # Lightning still passes it, W&B warns that it means nothing
        self._id_file = id_file

    @property
    @rank_zero_only
    def experiment(self) -> "Run":
        import wandb

        try:
            run = super().experiment
        except wandb.errors.Error as error:  # the server went away since it was asked, or refuses this run
            if self._offline:
                return self._disabled(error)
            say(why_not(error))
            self._offline = True
            self._wandb_init["mode"] = "offline"
            try:
                run = super().experiment
            except (wandb.errors.Error, OSError) as again:
                return self._disabled(again)
        except OSError as error:  # not even its files can be written
            return self._disabled(error)
        if known_id(self._id_file) is None and getattr(run, "id", None):
            with atomic_open(self._id_file, "w") as stream:
                stream.write(run.id + "\n")
        return run

    def _disabled(self, error: Exception) -> "Run":
        give_up(self, error)
        self._wandb_init["mode"] = "disabled"
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        def send() -> None:
            draw_over_images(self._run(), metrics)
            super(RunWandbLogger, self).log_metrics(metrics, step)

        unless_in_trouble(self, send)

    @rank_zero_only
    def log_summary(self, values: Mapping[str, float]) -> None:
        """Values of the whole run, such as the best of each figure."""
        unless_in_trouble(self, lambda: self._run().summary.update(dict(values)))

    def _run(self) -> "Run":
        run = self.experiment
        assert run is not None, "asked on rank 0 only"
        return run
