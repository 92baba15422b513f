"""Everything that can be known to be wrong from the configuration, before weights are read or processes start."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from meddiff.cli.named_callbacks import given_twice, listed_callbacks, named_arguments
from meddiff.cli.trainer_options import cuts_weights, trainer_problems
from meddiff.common.errors import UserError
from meddiff.common.foreign_files import instead_of_weights
from meddiff.runs.building import import_class
from meddiff.runs.checkpoints import broken
from meddiff.shards.manifest import Manifest

#: Classes and the arguments that they are given.
Owners = Sequence[tuple[type | None, Mapping[str, Any]]]


def problems_before_start(verb: str, section: Namespace) -> list[str]:
    """One sentence for each thing that is missing or wrong; empty when the run may start.

    Args:
        verb: fit, validate, test or predict.
        section: the parsed configuration of the verb (trainer, model, data, callbacks by name).
    """
    model, model_args = class_and_arguments(section.get("model"))
    data, data_args = class_and_arguments(section.get("data"))
    callbacks = list(map(class_and_arguments, listed_callbacks(section)))
    if verb != "predict":
        callbacks += named_arguments(section)
    problems = trainer_problems(verb, section.trainer, data, [kind for kind, _ in callbacks])
    problems += checkpoint_problems(section.get("ckpt_path"))
    problems += given_twice(section) if verb != "predict" else []
    problems += speed_problems(section.trainer, model_args) if verb == "fit" else []
    check, ranks = getattr(data, "preflight_ranks", None), ranks_asked_for(section.trainer)
    if verb == "fit" and check is not None and ranks is not None and not problems:
        problems += check(ranks, section.trainer.get("accumulate_grad_batches") or 1, **data_args)
    owners = [(model, model_args), (data, data_args), *callbacks]
    for owner, arguments in owners:
        check = getattr(owner, "preflight", None)
        problems += check(**arguments) if check is not None else []
    check, read = getattr(model, "preflight_data", None), getattr(data, "read_manifest", None)
    if not problems and read is not None:
        try:
            manifest = read(**data_args)
            problems += measured_problems(data, data_args, manifest, callbacks)
            if manifest is not None:
                problems += split_problems(verb, section.trainer, manifest, data_args)
                problems += check(manifest, **model_args) if check is not None else []
        except UserError as error:
            problems.append(str(error))
    return problems


def split_problems(verb: str, trainer: Namespace, manifest: Manifest, data: Mapping[str, Any]) -> list[str]:
    """A sentence where the shards lack the split that is validated, tested or drawn; training would begin, and end there."""
    option, limit = ("test_split", "limit_test_batches") if verb == "test" else ("val_split", "limit_val_batches")
    limit = "limit_predict_batches" if verb == "predict" else limit
    split = data.get(option)
    if split is None or trainer.get(limit) == 0 or split in (data.get("splits_from") or {}) or manifest.samples(split):
        return []
    have = ", ".join(sorted({shard.split for shard in manifest.shards})) or "none"
    without = f", or do without by --trainer.{limit} 0" if verb == "fit" else ""
    return [
        f"data: the shards at {data.get('shards')} have no samples of split {split!r} (they have: {have}): name another with "
        f"--data.{option}{without}."
    ]


def measured_problems(
    data: type | None, arguments: Mapping[str, Any], manifest: Manifest | None, callbacks: Owners
) -> list[str]:
    """A sentence for each measurement whose split is not there or too small, also of a cohort that is not made yet."""
    planned = getattr(data, "split_sizes", None)
    sizes: dict[str, int | None] = {}
    if planned is not None:
        sizes = planned(**arguments)
    elif manifest is not None:
        sizes = {shard.split: manifest.samples(shard.split) for shard in manifest.shards}
    if not sizes:
        return []
    sizes |= dict.fromkeys(arguments.get("splits_from") or {})
    checks = [(getattr(kind, "preflight_splits", None), given) for kind, given in callbacks]
    return [problem for check, given in checks if check is not None for problem in check(sizes, **given)]


def ranks_asked_for(trainer: Namespace) -> int | None:
    """Processes of a training as its configuration says; None where that is left to the machine."""
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes") or 1
    if isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    each = len(devices) if isinstance(devices, list) else devices
    return each * nodes if isinstance(each, int) and each > 0 else None


def speed_problems(trainer: Namespace, model: Mapping[str, Any]) -> list[str]:
    """A sentence for each switch of ``speed`` that does not go with weights that are shared among GPUs."""
    given, speed = trainer.get("strategy"), model.get("speed")
    strategy = str(given.get("class_path") if isinstance(given, Namespace) else given)
    if not cuts_weights(strategy) or not isinstance(speed, Mapping | Namespace):
        return []
    problems = []
    if speed.get("channels_last"):
        problems.append(
            "model: speed.channels_last lays weights out in a way in which FSDP cannot cut them: "
            "add --model.init_args.speed.channels_last false, or take strategy ddp."
        )
    # FullyShardedStrategy leaves a frozen tower whole, the older FSDP cuts that, too
    if speed.get("text_cache") and "fullysharded" not in strategy.lower():
        problems.append(
            "model: speed.text_cache keeps states of a frozen text tower that FSDP shares among processes: they would wait for "
            "each other at texts that not all of them have to encode: add --model.init_args.speed.text_cache 0, or take "
            "strategy ddp."
        )
    return problems


def checkpoint_problems(path: str | None) -> list[str]:
    """A checkpoint that is named must be there, whole; ``best``, ``last``, ``hpc`` and ``registry`` are words of Lightning."""
    if path is None or path in ("best", "last", "hpc") or path.startswith("registry"):
        return []
    if Path(path).exists():
        other = instead_of_weights(path) if Path(path).is_file() else None
        problem = other or broken(Path(path))
        return [problem] if problem else []
    return [f"No checkpoint at {path}: give a .ckpt file, or go on with a whole run by --resume RUN."]


def class_and_arguments(config: Namespace | None) -> tuple[type | None, dict[str, Any]]:
    """The class a ``class_path`` names and its arguments as a dict; of nothing: None."""
    if config is None or config.get("class_path") is None:
        return None, {}
    arguments = config.get("init_args")
    return import_class(config["class_path"]), dict(arguments.as_dict()) if arguments is not None else {}
