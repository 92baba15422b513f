"""What does image quality cost in understanding? Latent diffusion on medical images: models, measurements, reports.

In a notebook::

    import meddiff

    model = meddiff.load("runs/quickstart")
    maps = model.ground("chest.png", "Large right pleural effusion.")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meddiff.notebook import LoadedModel, WordMaps, load

__all__ = ["LoadedModel", "WordMaps", "load"]


def __getattr__(name: str) -> object:
    # At first use: reports and the command's help import this package and need no torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from meddiff import notebook

    return getattr(notebook, name)
