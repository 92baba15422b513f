"""The bounds of numbers by their names, the same in every config and verb: absurd values, told before anything starts.

A class may allow less than the table says (:mod:`meddiff.common.ranges`); nothing allows more. Source: own.
"""

from collections.abc import Mapping

from meddiff.common.ranges import NOT_NEGATIVE, Range, range_problems

_MANY = Range(1, 10**6, whole=True)
_SEED = Range(0, 2**32 - 1, whole=True)
_MANY_OR_NONE = Range(0, 10**6, whole=True)
_FOR_LONG = Range(-1, 10**10, whole=True)
#: Last part of an option's name -> what it may be.
BOUNDS: Mapping[str, Range] = {
    "batch_size": _MANY,
    "num_workers": Range(0, 1024, whole=True),
    "processes": Range(1, 1024, whole=True),
    "devices": Range(-1, 10_000, whole=True),
    "num_nodes": Range(1, 10_000, whole=True),
    "seed": _SEED,
    "seed_everything": _SEED,
    "num_images": _MANY,
    "samples_per_shard": Range(1, 10**7, whole=True),
    "resolution": Range(1, 16_384, whole=True),
    "guidance_scale": Range(0, 1000),
    "gamma": Range(0, 10**6, above=True),
    "warmup_steps": Range(0, 10**10, whole=True),
    "port": Range(0, 65_535, whole=True),
}
#: The same of the trainer's own: Lightning takes several absurd ones without a word.
OF_TRAINER: Mapping[str, Range] = {
    "devices": BOUNDS["devices"],
    "num_nodes": BOUNDS["num_nodes"],
    "max_steps": _FOR_LONG,
    "min_steps": Range(0, 10**10, whole=True),
    "max_epochs": _FOR_LONG,
    "min_epochs": Range(0, 10**10, whole=True),
    "num_sanity_val_steps": Range(-1, 10**6, whole=True),
    "log_every_n_steps": Range(0, 10**9, whole=True),
    "accumulate_grad_batches": _MANY,
    "check_val_every_n_epoch": _MANY,
    "reload_dataloaders_every_n_epochs": _MANY_OR_NONE,
    "fast_dev_run": _MANY_OR_NONE,
    "gradient_clip_val": NOT_NEGATIVE,
    "val_check_interval": Range(0, 10**10, above=True),
    "overfit_batches": Range(0, 10**10),
    "limit_train_batches": Range(0, 10**10),
    "limit_val_batches": Range(0, 10**10),
    "limit_test_batches": Range(0, 10**10),
    "limit_predict_batches": Range(0, 10**10),
}


def out_of_bounds(values: Mapping[str, object], owner: str = "") -> list[str]:
    """One sentence for each number below ``values`` that :data:`BOUNDS` does not allow.

    Args:
        owner: what the values belong to, put before their names; dots go deeper.

    Example:
        >>> out_of_bounds({"sampling": {"guidance_scale": -2.0}, "batch_size": 8})
        ['sampling.guidance_scale is -2.0; it must lie in [0, 1,000].']
    """
    problems = range_problems(values, BOUNDS, owner)
    for name, value in values.items():
        if isinstance(value, Mapping):
            problems += out_of_bounds(value, f"{owner}{name}.")
    return problems
