"""Large libraries, read while a line says so: on a cold machine each takes seconds, once for all ranks. Source: own."""

import sys
from importlib import import_module

from meddiff.common.processes import is_first_process


def read_torch(verb: str) -> None:
    """torch, which takes ten seconds on a cold machine."""
    _read(verb, "torch", "torch")


def read_lightning(verb: str) -> None:
    """Lightning, with what stands on it."""
    _read(verb, "Lightning", "meddiff.cli.lightning_cli")


def read_metrics(verb: str) -> None:
    """torchmetrics and diffusers, for verbs that measure."""
    _read(verb, "torchmetrics", "torchmetrics")
    _read(verb, "diffusers", "diffusers.models.autoencoders", "diffusers.models.unets.unet_2d_condition")


def _read(verb: str, library: str, *modules: str) -> None:
    if all(module in sys.modules for module in modules):
        return
    from meddiff.common.progress import doing

    with doing(f"lightning {verb}: reading {library}", is_first_process()):
        for module in modules:
            import_module(module)
