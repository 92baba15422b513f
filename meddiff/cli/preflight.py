"""Everything that can be known to be wrong from the configuration, before weights are read or processes start."""

from importlib import import_module
from pathlib import Path
from typing import Any

from meddiff.cli.quick_check import no_gpu_sentence
from meddiff.common.errors import UserError


def problems_before_start(verb: str, section: Any) -> list[str]:
    """One sentence for each thing that is missing or wrong; empty when the run may start.

    Args:
        verb: fit, validate, test or predict.
        section: the parsed configuration of the verb (jsonargparse Namespace with trainer, model, data).
    """
    problems = trainer_problems(verb, section.trainer) + checkpoint_problems(section.get("ckpt_path"))
    model, model_args = _class_and_arguments(section.get("model"))
    data, data_args = _class_and_arguments(section.get("data"))
    for owner, arguments in ((model, model_args), (data, data_args)):
        if hasattr(owner, "preflight"):
            problems += owner.preflight(**arguments)
    for callback in section.trainer.get("callbacks") or []:
        owner, arguments = _class_and_arguments(callback)
        if hasattr(owner, "preflight"):
            problems += owner.preflight(**arguments)
    if not problems and hasattr(model, "preflight_data") and hasattr(data, "read_manifest"):
        try:
            manifest = data.read_manifest(**data_args)
            problems += model.preflight_data(manifest, **model_args) if manifest is not None else []
        except UserError as error:
            problems.append(str(error))
    return problems


def trainer_problems(verb: str, trainer: Any) -> list[str]:
    """What the trainer asks for and this machine does not have."""
    problems = []
    if verb == "fit" and trainer.get("max_steps", -1) in (-1, None) and not trainer.get("fast_dev_run"):
        problems.append("The training stream is endless: say how long with --trainer.max_steps N.")
    if trainer.get("accelerator") in ("gpu", "cuda"):
        import torch

        wanted, there = trainer.get("devices"), torch.cuda.device_count()
        if there == 0 or (isinstance(wanted, int) and wanted > there):
            problems.append(no_gpu_sentence(wanted, there))
    return problems


def checkpoint_problems(path: str | None) -> list[str]:
    """A checkpoint that is named must be there; ``best``, ``last``, ``hpc`` and ``registry`` are Lightning's own words."""
    if path is None or path in ("best", "last", "hpc") or path.startswith("registry") or Path(path).exists():
        return []
    return [f"No checkpoint at {path}: give a .ckpt file, or go on with a whole run by --resume RUN."]


def _class_and_arguments(config: Any) -> tuple[Any, dict[str, Any]]:
    """The class a ``class_path`` names and its arguments as a dict."""
    if config is None or config.get("class_path") is None:
        return None, {}
    module, _, name = config["class_path"].rpartition(".")
    arguments = config.get("init_args")
    return getattr(import_module(module), name), dict(arguments.as_dict()) if arguments is not None else {}
