"""What can be evaluated and drawn with, wherever it came from: a run or checkpoint of this suite, or a published model.

Source: own.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from meddiff.runs.facts import Facts

if TYPE_CHECKING:
    from meddiff.models.latent_diffusion import LatentDiffusion
    from meddiff.shards.dataset import LatentShardsDataset
    from meddiff.shards.manifest import Manifest


class ShardsData(Protocol):
    """What is asked of a data module: splits of latent shards."""

    prompt: str
    train_split: str
    manifest: "Manifest"

    def prepare_data(self) -> None: ...

    def has_split(self, split: str) -> bool: ...

    def dataset(self, split: str) -> "LatentShardsDataset": ...


class Opened(Protocol):
    """A model and the cohort it is measured on; parts are built when they are first asked for.

    Attributes:
        facts: name, run folder (None where there is none) and seed.
    """

    facts: Facts

    @property
    def file(self) -> Path:
        """The checkpoint, file or folder that is meant."""
        ...

    @property
    def images(self) -> int:
        """Images it was trained on here."""
        ...

    @property
    def model(self) -> "LatentDiffusion":
        """In eval mode, on its device."""
        ...

    @property
    def data(self) -> ShardsData:
        """The cohort."""
        ...

    def before(self) -> "LatentDiffusion | None":
        """The model before it was trained; None where that is not known."""
        ...

    def untrained(self) -> "LatentDiffusion":
        """The same with a U-Net of random weights."""
        ...

    def about(self) -> dict[str, object]:
        """What ``evaluation.json`` says of it beside name, seed and cohort: run, checkpoint, images, freezing, ..."""
        ...

    def evaluation_folder(self) -> Path:
        """Where evaluations go unless told otherwise."""
        ...

    @property
    def report_folder(self) -> Path | None:
        """The run folder into which ``lightning report`` looks for controls of what is measured; None: in no run's."""
        ...
