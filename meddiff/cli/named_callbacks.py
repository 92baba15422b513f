"""Callbacks by name: ``grounding: {every_n_images: 12000, timesteps: 10}`` at the top of a config, ``null`` turns one off.

A list cannot be changed in one place: a second config, a flag and a sweep would have to repeat all of it. So what every run
measures has a name of its own, and its options are those of the class (``--grounding.timesteps 10``, ``fidelity.samples`` in
a sweep, ``--gallery null``). ``trainer.callbacks`` still takes lists, for everything else. Source: own.
"""

from typing import Any

from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser

from callbacks import (
    AttentionGalleryCallback,
    CocoGroundingCallback,
    DenoisingSaliencyCallback,
    FidelityCallback,
    GroundingCallback,
    PrototypesCallback,
    RunCheckpoint,
    ThroughputCallback,
    TradeoffCallback,
)
from meddiff.runs.building import import_class

#: name -> class, in the order in which they run: the trade-off collects what the evaluations before it found.
NAMED: dict[str, type[Callback]] = {
    "checkpoint": RunCheckpoint,
    "grounding": GroundingCallback,
    "coco": CocoGroundingCallback,
    "fidelity": FidelityCallback,
    "gallery": AttentionGalleryCallback,
    "saliency": DenoisingSaliencyCallback,
    "prototypes": PrototypesCallback,
    "throughput": ThroughputCallback,
    "tradeoff": TradeoffCallback,
}

# The options stand directly under the name, without class_path and init_args, which other callbacks need.
set_parsing_settings(subclasses_disabled=list(NAMED.values()))


def add_named_callbacks(parser: LightningArgumentParser) -> None:
    """One option a name; null, the default, is off."""
    for name, kind in NAMED.items():
        text = f"{first_sentence(kind)} Null: not in this run."
        parser.add_argument(f"--{name}", type=kind | None, default=None, help=text)


def first_sentence(kind: type[object]) -> str:
    """What a class says of itself."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def named_callbacks(section: Namespace) -> list[Callback]:
    """Those that are on, built, in their order.

    Args:
        section: configuration of a verb, its classes instantiated.
    """
    return [section[name] for name in NAMED if section.get(name) is not None]


def named_arguments(section: Namespace) -> list[tuple[type, dict[str, Any]]]:
    """Class and arguments of those that are on, before anything is built.

    Args:
        section: parsed configuration of a verb.
    """
    on = [(kind, section.get(name)) for name, kind in NAMED.items()]
    return [(kind, arguments.as_dict()) for kind, arguments in on if arguments is not None]


def listed_callbacks(section: Namespace) -> list[Any]:
    """``trainer.callbacks`` as a list: parsed (each with its class_path) or built, as ``section`` is."""
    listed = section.trainer.get("callbacks") or []
    return list(listed) if isinstance(listed, list) else [listed]


def given_twice(section: Namespace) -> list[str]:
    """One sentence for each callback that stands both under its name and in ``trainer.callbacks``.

    Args:
        section: parsed configuration of a verb.
    """
    kinds = [import_class(one.class_path) for one in listed_callbacks(section)]
    return [
        f"{name}: stands here and as {kind.__name__} in trainer.callbacks: take it out of the list, or set {name} to null."
        for name, kind in NAMED.items()
        if section.get(name) is not None and any(issubclass(one, kind) for one in kinds)
    ]
