"""LightningCLI with the suite's run folders, defaults and checks."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, Callback, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf.errors import OmegaConfBaseException

from callbacks.checkpoint import RunCheckpoint
from callbacks.checkpoint_io import DurableCheckpointIO
from callbacks.finished import FinishedMark
from callbacks.gate import cohorts_of, gated
from callbacks.image_writer import ImageWriter
from callbacks.learning_rates import LearningRates
from callbacks.model_summary import Parts
from callbacks.progress import ImagesProgressBar
from callbacks.starting import Starting
from callbacks.stopping import StopBetweenSteps
from callbacks.tracking import JsonlLogger, default_loggers
from callbacks.wandb_trouble import finish_wandb
from meddiff.cli.closing import drawing_arguments, ways_on
from meddiff.cli.lost_process import end_without_launcher, lost_process
from meddiff.cli.named_callbacks import add_named_callbacks, listed_callbacks, named_callbacks
from meddiff.cli.parsing import home_spelled_out, one_sentence, values_read
from meddiff.cli.preflight import problems_before_start
from meddiff.cli.quiet import hush
from meddiff.cli.run_config import RunConfig, last_written
from meddiff.cli.side_by_side import exchange_between
from meddiff.common.bounds import out_of_bounds
from meddiff.common.errors import UserError, refuse
from meddiff.common.outside import terminal
from meddiff.common.processes import is_first_process
from meddiff.common.progress import doing, say
from meddiff.runs import names
from meddiff.runs.checkpoints import checkpoint_to_go_on, clear_leftovers
from meddiff.runs.new_run import RUN_DIR_VARIABLE, begin_again, restarted, run_folder

# `${data.init_args.batch_size}` in a file then means the same place under every verb, and follows overrides.
jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)

UPLOAD_HELP = "Send pictures, captions and keys to the loggers although a cohort is credentialed (docs/cohorts.md)."

TRAINER_DEFAULTS: dict[str, Any] = {
    "use_distributed_sampler": False,  # the stream shards itself
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": None,  # the stream is endless: intervals are in steps
    "log_every_n_steps": 10,
}


class SuiteParser(LightningArgumentParser):
    """Errors in one sentence instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        one_sentence(self, message, ex)


class SuiteCLI(LightningCLI):
    """LightningCLI that makes a run folder, logs to W&B and metrics.jsonl, and checks before it starts.

    Args:
        held: takes what is held until the run has ended: the lock of its folder.
        verb: the only one that will be parsed; None: any of Lightning's. A parser has all options of the Trainer, and
            takes as long to make as the arguments to read.
        options: LightningCLI's.
    """

    def __init__(self, held: ExitStack, verb: str | None = None, **options: Any) -> None:
        self.held, self._verb = held, verb
        super().__init__(LightningModule, LightningDataModule, **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static, and asked of a CLI
        """The verbs that have a parser: verb -> arguments of the Trainer's method that are no options."""
        return {verb: skip for verb, skip in LightningCLI.subcommands().items() if self._verb in (None, verb)}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default="run", help="Name of the run folder: RUNS/NAME/TIME.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all run folders.")
        parser.add_argument(
            "--base",
            type=str | list[str] | None,
            default=None,
            help="Config file(s) this one states its difference from.",
        )
        parser.add_argument("--allow_media_upload", type=bool, default=False, help=UPLOAD_HELP)
        add_named_callbacks(parser)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let the checkpoint's hyperparameters silently win over the command line."""

    @property
    def section(self) -> jsonargparse.Namespace:
        """The parsed configuration of the verb."""
        section: jsonargparse.Namespace = self.config[self.subcommand]
        return section

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        what = f"lightning {self._verb or ''}: reading the configuration"
        with doing(what, is_first_process()), values_read(parser, sys.argv[2:]):
            super().parse_arguments(parser, args)
        seed = self.config[self.config.subcommand].get("seed_everything")
        refuse(out_of_bounds({"seed_everything": seed}))  # the next to be used

    def instantiate_classes(self) -> None:
        with doing("building model, data and trainer", is_first_process(), stays=False):
            super().instantiate_classes()
        if self.trainer is None:  # model and data alone
            return
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # not declared
        for starting in (one for one in callbacks if isinstance(one, Starting)):
            starting.begin(is_first_process() and self.trainer.progress_bar_callback is not None)
            self.held.callback(starting.end)

    def before_instantiate_classes(self) -> None:
        home_spelled_out(self.section)
        with doing("checking weights, shards and options", is_first_process(), stays=False):
            refuse(problems_before_start(str(self.subcommand), self.section))
        runs, name, verb = self.section.runs, self.section.name, str(self.subcommand)
        exchange = self.held.enter_context(exchange_between(Path(runs) / name, sys.argv[1:]))
        self.run_dir = self.held.enter_context(run_folder(runs, name, verb, sys.argv[2:], exchange))
        if verb == "fit":
            clear_leftovers(self.run_dir / names.CHECKPOINTS)
            if restarted() and self.section.get("ckpt_path") is None:
                self.section.ckpt_path = checkpoint_to_go_on(self.run_dir)
                if self.section.ckpt_path is None and is_first_process():
                    begin_again(self.run_dir)
        end_without_launcher(self.run_dir)
        if is_first_process() and not self.section.trainer.get("fast_dev_run"):
            say(f"run folder: {terminal(self.run_dir)}")
        if self.section.trainer.default_root_dir is None:
            self.section.trainer.default_root_dir = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        section = self.config_init[str(self.subcommand)]
        trainer = section.trainer
        callbacks = listed_callbacks(section) + (named_callbacks(section) if self.subcommand != "predict" else [])

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
                callback.dirpath = str(self.run_dir / names.CHECKPOINTS)
        loggers = trainer.get("logger")
        if loggers is None or loggers is True:
            loggers = default_loggers(self.run_dir, self.section.name, str(self.subcommand))
        elif loggers is False:
            loggers = []
        loggers = loggers if isinstance(loggers, list) else [loggers]
        # metrics.jsonl is the source of every report: written whatever else logs.
        if not any(isinstance(logger, JsonlLogger) for logger in loggers):
            loggers = [*loggers, JsonlLogger(self.run_dir)]
        loggers = gated(loggers, cohorts_of(self.datamodule), self.run_dir, self.section.allow_media_upload)
        callbacks.insert(0, Starting())
        if self.subcommand == "fit":
            callbacks.append(LearningRates())
            if trainer.get("enable_model_summary") is not False and not has(ModelSummary):
                callbacks.append(Parts())
            callbacks.insert(0, StopBetweenSteps())  # first: a signal is heeded from the first moment of training on
            callbacks += [] if trainer.get("fast_dev_run") else [FinishedMark()]
        section["trainer"]["callbacks"] = callbacks
        section["trainer"]["plugins"] = with_durable_checkpoints(trainer)
        try:
            return super().instantiate_trainer(logger=loggers, **kwargs)
        except (MisconfigurationException, ValueError) as error:
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error


#: How LightningCLI is built, whatever is done with what it parsed.
CLI_OPTIONS: dict[str, Any] = {
    "subclass_mode_model": True,
    "subclass_mode_data": True,
    "seed_everything_default": 0,
    "save_config_callback": RunConfig,
    "save_config_kwargs": {"save_to_log_dir": False},
    "trainer_defaults": TRAINER_DEFAULTS,
    "parser_kwargs": {"parser_mode": "omegaconf+", "prog": "lightning"},
    "parser_class": SuiteParser,
    "auto_configure_optimizers": False,
    "load_from_checkpoint_support": False,
}


def with_durable_checkpoints(trainer: jsonargparse.Namespace) -> list[object]:
    """The trainer's plugins, and ours for checkpoints where the user has chosen none."""
    plugins = trainer.get("plugins")
    listed = list(plugins) if isinstance(plugins, list | tuple) else [plugins] if plugins is not None else []
    chosen = [*listed, getattr(trainer.get("strategy"), "_checkpoint_io", None)]
    return listed if any(isinstance(one, CheckpointIO) for one in chosen) else [*listed, DurableCheckpointIO()]


def run(verb: str, arguments: list[str]) -> int:
    """Parse ``arguments`` and run ``verb``; returns the exit code.

    Raises:
        UserError: preflight found something missing.
    """
    inherited = os.environ.get(RUN_DIR_VARIABLE)
    hush(verb == "fit")
    # DDP starts its child processes with sys.argv: the same program, the rewritten arguments.
    before = sys.argv
    sys.argv = [before[0], verb, *arguments]
    held = ExitStack()
    try:
        cli = SuiteCLI(held, verb, **CLI_OPTIONS)
        _closing_line(cli)
        callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
        return next((one.exit_code(cli.trainer) for one in callbacks if isinstance(one, StopBetweenSteps)), 0)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning makes an exit with code 1 of it
            raise end.__context__ from None
        raise
    except OmegaConfBaseException as error:
        raise UserError(
            f"The configuration refers to a place that is not there: {' '.join(str(error).split())}"
        ) from error
    except MisconfigurationException as error:
        raise UserError(f"Lightning cannot run this configuration: {' '.join(str(error).split())}") from error
    except ValueError as error:
        raise (user_error_within(error) or error) from error
    except RuntimeError as error:
        raise (lost_process(error, os.environ.get(RUN_DIR_VARIABLE)) or error) from error
    finally:
        held.close()
        sys.argv = before
        finish_wandb()
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
        print(f"\n{state} at step {cli.trainer.global_step}; run folder: {terminal(cli.run_dir)}")
        if (cli.run_dir / names.REPORT).is_file():
            print(f"  look:   {terminal(cli.run_dir / names.REPORT)}")
        draws = drawing_arguments(cli.model)
        for line in ways_on(cli.run_dir, last_written(cli.trainer), draws, " --trainer.max_steps N"):
            print(f"  {line}")
    else:
        print(f"\nrun folder: {terminal(cli.run_dir)}")
