"""LightningCLI with the suite's run folders, defaults and checks."""

import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from callbacks.checkpoint import RunCheckpoint
from callbacks.image_writer import ImageWriter
from callbacks.progress import ImagesProgressBar
from callbacks.tracking import JsonlLogger, default_loggers
from meddiff.cli.arguments import RUN_DIR_VARIABLE
from meddiff.cli.main import refuse
from meddiff.cli.parsing import one_sentence
from meddiff.cli.preflight import problems_before_start
from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open

# `${data.init_args.batch_size}` in a file then means the same place under every verb, and follows overrides.
jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)

#: What Lightning and W&B say at every start although nothing is wrong.
EXPECTED_WARNINGS = (
    r".*LeafSpec.* is deprecated.*",
    r"Found \d+ module\(s\) in eval mode at the start of training.*",  # the frozen text tower
    r".*does not have many workers which may be a bottleneck.*",
    r"You have overridden `on_before_batch_transfer`.*",
    r"The dirpath has changed from .*",  # a checkpoint of another run
    r"Checkpoint directory .* exists and is not empty.*",  # a run that goes on in its own folder
)

TRAINER_DEFAULTS: dict[str, Any] = {
    "use_distributed_sampler": False,  # the stream shards itself
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": None,  # the stream is endless: intervals are in steps
    "log_every_n_steps": 10,
}


class SuiteParser(LightningArgumentParser):
    """Errors in one sentence instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        one_sentence(self, message, ex)


class SuiteCLI(LightningCLI):
    """LightningCLI that creates a run folder, logs to W&B and metrics.jsonl, and checks before it starts."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default="run", help="Name of the run folder: RUNS/NAME/TIME.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all run folders.")
        parser.add_argument(
            "--base",
            type=str | list[str] | None,
            default=None,
            help="Config file(s) this one states its difference from.",
        )

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let the checkpoint's hyperparameters silently win over the command line."""

    @property
    def section(self) -> Any:
        """The parsed configuration of the verb."""
        return self.config[self.subcommand]

    def before_instantiate_classes(self) -> None:
        refuse(problems_before_start(str(self.subcommand), self.section))
        self.run_dir = run_folder(self.section.runs, self.section.name, str(self.subcommand))
        if self.section.trainer.default_root_dir is None:
            self.section.trainer.default_root_dir = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = self._get(self.config_init, "trainer")
        callbacks = list(trainer.get("callbacks") or [])

        def has(kind: type[Callback]) -> bool:
            return any(isinstance(callback, kind) for callback in callbacks)

        if trainer.get("enable_progress_bar") is not False and not has(ProgressBar):
            callbacks.append(ImagesProgressBar())
        if trainer.get("enable_checkpointing") is not False and self.subcommand == "fit" and not has(ModelCheckpoint):
            callbacks.append(RunCheckpoint())
        if self.subcommand == "predict" and not has(BasePredictionWriter):
            callbacks.append(ImageWriter())
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.run_dir / "checkpoints")
        loggers = trainer.get("logger")
        if loggers is None or loggers is True:
            loggers = default_loggers(self.run_dir, self.section.name)
        elif loggers is False:
            loggers = []
        loggers = loggers if isinstance(loggers, list) else [loggers]
        # metrics.jsonl is the source of every report: written whatever else logs.
        if not any(isinstance(logger, JsonlLogger) for logger in loggers):
            loggers = [*loggers, JsonlLogger(self.run_dir)]
        self.config_init[str(self.subcommand)]["trainer"]["callbacks"] = callbacks
        return super().instantiate_trainer(logger=loggers, **kwargs)


class RunConfig(SaveConfigCallback):
    """Writes the resolved configuration to ``config.yaml`` of the run folder and to the loggers."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        config.pop("config", None)
        config["base"] = None  # resolved: the file stands for itself
        config["ckpt_path"] = None
        config["trainer"]["default_root_dir"] = None
        name = "config.yaml" if stage == "fit" else f"config.{stage}.yaml"
        with atomic_open(Path(trainer.default_root_dir) / name, "w") as stream:
            yaml.safe_dump(config, stream, sort_keys=False, allow_unicode=True)
        for logger in trainer.loggers:
            logger.log_hyperparams(config)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Whatever stopped the run: say how to go on from what is there."""
        checkpoints = sorted((Path(trainer.default_root_dir) / "checkpoints").glob("step-*.ckpt"))
        if trainer.is_global_zero and checkpoints:
            print(f"\nstopped at step {trainer.global_step}; the newest checkpoint is {checkpoints[-1]}")
            print(f"  go on:  lightning fit --resume {trainer.default_root_dir}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that goes on in its own folder forgets the rows it is about to log again."""
        for logger in trainer.loggers:
            if isinstance(logger, JsonlLogger) and trainer.global_step > 0:
                logger.drop_after(trainer.global_step)


def run_folder(runs: str, name: str, verb: str) -> Path:
    """RUNS/NAME/TIME, new for every run, the same for all processes of one run.

    Child processes of DDP inherit it through the environment; under SLURM and torchrun, whose processes start
    independently, the job's id takes the place of the time, so that a requeued job finds its folder again.
    """
    if RUN_DIR_VARIABLE in os.environ:
        return Path(os.environ[RUN_DIR_VARIABLE])
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID")
    stem = f"job-{job}" if job and job != "none" else time.strftime("%Y%m%d-%H%M%S")
    folder = Path(runs) / name / (stem if verb == "fit" else f"{stem}-{verb}")
    attempt = 1
    while not job and folder.exists():
        attempt += 1
        folder = folder.with_name(f"{stem}{'' if verb == 'fit' else '-' + verb}-{attempt}")
    os.environ[RUN_DIR_VARIABLE] = str(folder)
    return folder


def run(verb: str, arguments: list[str]) -> int:
    """Parse ``arguments`` and run ``verb``; returns the exit code.

    Raises:
        UserError: preflight found something missing.
    """
    inherited = os.environ.get(RUN_DIR_VARIABLE)
    for pattern in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    # DDP starts its child processes with sys.argv: the same program, the rewritten arguments.
    before = sys.argv
    sys.argv = [before[0], verb, *arguments]
    try:
        cli = SuiteCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={"parser_mode": "omegaconf+", "prog": "lightning"},
            parser_class=SuiteParser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )
        _closing_line(cli)
        return 0
    except ValueError as error:
        raise (user_error_within(error) or error) from error
    finally:
        sys.argv = before
        if "wandb" in sys.modules:  # so that a second run in this process gets a W&B run of its own
            sys.modules["wandb"].finish()
        if inherited is None:
            os.environ.pop(RUN_DIR_VARIABLE, None)


def user_error_within(error: BaseException) -> UserError | None:
    """The UserError that jsonargparse wrapped while it built a class, if there is one."""
    seen: list[BaseException | None] = [error]
    while seen:
        inner = seen.pop()
        if isinstance(inner, UserError):
            return inner
        seen += [inner.__cause__, inner.__context__] if inner is not None else []
    return None


@rank_zero_only
def _closing_line(cli: SuiteCLI) -> None:
    if cli.section.trainer.get("fast_dev_run"):
        return
    if cli.subcommand == "fit":
        state = "interrupted" if cli.trainer.interrupted else "finished"
        print(f"\n{state} at step {cli.trainer.global_step}; run folder: {cli.run_dir}")
        if (cli.run_dir / "report.html").is_file():
            print(f"  look:   {cli.run_dir / 'report.html'}")
        print(f"  go on:  lightning fit --resume {cli.run_dir} --trainer.max_steps N")
        if hasattr(cli.model, "sample"):
            print(f'  draw:   lightning sample --ckpt {cli.run_dir} --prompts "Large right pleural effusion."')
    else:
        print(f"\nrun folder: {cli.run_dir}")
