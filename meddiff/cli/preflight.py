"""Everything that can be known to be wrong from the configuration, before weights are read or processes start."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from meddiff.cli.named_callbacks import given_twice, listed_callbacks, named_arguments
from meddiff.cli.quick_check import no_gpu_sentence
from meddiff.common.errors import UserError
from meddiff.common.foreign_files import instead_of_weights
from meddiff.common.ranges import COUNT, NOT_NEGATIVE, range_problems
from meddiff.runs.open_run import import_class

#: What the trainer's numbers may be that scale or bound every step.
TRAINER_RANGES = {"gradient_clip_val": NOT_NEGATIVE, "accumulate_grad_batches": COUNT}


def problems_before_start(verb: str, section: Namespace) -> list[str]:
    """One sentence for each thing that is missing or wrong; empty when the run may start.

    Args:
        verb: fit, validate, test or predict.
        section: the parsed configuration of the verb (trainer, model, data, callbacks by name).
    """
    problems = trainer_problems(verb, section.trainer) + checkpoint_problems(section.get("ckpt_path"))
    model, model_args = class_and_arguments(section.get("model"))
    data, data_args = class_and_arguments(section.get("data"))
    owners = [(model, model_args), (data, data_args), *map(class_and_arguments, listed_callbacks(section))]
    if verb != "predict":
        problems += given_twice(section)
        owners += named_arguments(section)
    for owner, arguments in owners:
        check = getattr(owner, "preflight", None)
        problems += check(**arguments) if check is not None else []
    check, read = getattr(model, "preflight_data", None), getattr(data, "read_manifest", None)
    if not problems and check is not None and read is not None:
        try:
            manifest = read(**data_args)
            problems += check(manifest, **model_args) if manifest is not None else []
        except UserError as error:
            problems.append(str(error))
    return problems


def trainer_problems(verb: str, trainer: Namespace) -> list[str]:
    """What the trainer asks for and this machine does not have."""
    problems = []
    if verb == "fit" and trainer.get("max_steps", -1) in (-1, None) and not trainer.get("fast_dev_run"):
        problems.append("The training stream is endless: say how long with --trainer.max_steps N.")
    numbers = {name: trainer.get(name) for name in TRAINER_RANGES}
    problems += range_problems(numbers, TRAINER_RANGES, "trainer.")
    if trainer.get("accelerator") in ("gpu", "cuda"):
        import torch

        wanted, there = trainer.get("devices"), torch.cuda.device_count()
        if there == 0 or (isinstance(wanted, int) and wanted > there):
            problems.append(no_gpu_sentence(wanted, there))
    return problems


def checkpoint_problems(path: str | None) -> list[str]:
    """A checkpoint that is named must be there; ``best``, ``last``, ``hpc`` and ``registry`` are Lightning's own words."""
    if path is None or path in ("best", "last", "hpc") or path.startswith("registry"):
        return []
    if Path(path).exists():
        problem = instead_of_weights(path) if Path(path).is_file() else None
        return [problem] if problem else []
    return [f"No checkpoint at {path}: give a .ckpt file, or go on with a whole run by --resume RUN."]


def class_and_arguments(config: Namespace | None) -> tuple[type | None, dict[str, Any]]:
    """The class a ``class_path`` names and its arguments as a dict; of nothing: None."""
    if config is None or config.get("class_path") is None:
        return None, {}
    arguments = config.get("init_args")
    return import_class(config["class_path"]), dict(arguments.as_dict()) if arguments is not None else {}
