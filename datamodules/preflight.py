"""What can be known to be wrong with a data module's arguments before torch is imported."""

from collections.abc import Callable, Mapping

from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, COUNT_OR_NONE, Range, range_problems
from meddiff.shards.manifest import Manifest


def missing_shards(init_args: Mapping[str, object]) -> list[str]:
    """One sentence for each folder of shards that is not there; URLs and streamed shards are left alone."""
    others = init_args.get("splits_from")
    folders = [] if init_args.get("streaming") else [("", init_args.get("shards"))]
    if isinstance(others, Mapping):
        folders += [(f"splits_from.{split}: ", other) for split, other in others.items()]
    problems = []
    for where, shards in folders:
        if isinstance(shards, str) and ":" not in shards:
            try:
                Manifest.read(shards)
            except UserError as error:
                problems.append(f"{where}{error}")
    return problems


#: What the numbers of a data module over shards may be.
RANGES: dict[str, Range] = {
    "batch_size": COUNT,
    "max_batch_per_device": COUNT,
    "eval_batch_size": COUNT,
    "num_workers": COUNT_OR_NONE,
    "epoch_size": COUNT,
}


def quick_problems(init_args: Mapping[str, object]) -> list[str]:
    """What is certainly wrong, known without torch."""
    return range_problems(init_args, RANGES) + missing_shards(init_args)


#: Name of a class of this room -> its quick check; a class without one is left to the full check.
QUICK: dict[str, Callable[[Mapping[str, object]], list[str]]] = {
    "ImageShardsDataModule": quick_problems,
    "LatentShardsDataModule": quick_problems,
    "ShortcutDataModule": quick_problems,
    "ShortcutLatentsDataModule": quick_problems,
}
