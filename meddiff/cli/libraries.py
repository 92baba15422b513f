"""Large libraries, read while a line says so: on a cold machine each takes seconds, once for all ranks. Source: own."""

import sys

from meddiff.common.processes import is_first_process


def read_torch(verb: str) -> None:
    """torch, which takes ten seconds on a cold machine."""
    if "torch" not in sys.modules:
        from meddiff.common.progress import doing

        with doing(f"lightning {verb}: reading torch", is_first_process()):
            import torch  # noqa: F401


def read_lightning(verb: str) -> None:
    """Lightning, with what stands on it."""
    if "lightning.pytorch" not in sys.modules:
        from meddiff.common.progress import doing

        with doing(f"lightning {verb}: reading Lightning", is_first_process()):
            import meddiff.cli.lightning_cli  # noqa: F401


def read_metrics(verb: str) -> None:
    """torchmetrics and diffusers, for verbs that measure."""
    if "torchmetrics" not in sys.modules or "diffusers.models" not in sys.modules:
        from meddiff.common.progress import doing

        with doing(f"lightning {verb}: reading torchmetrics", is_first_process()):
            import torchmetrics  # noqa: F401
        with doing(f"lightning {verb}: reading diffusers", is_first_process()):
            from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401
