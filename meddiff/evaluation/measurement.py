"""What every measurement is: something that can be checked, costed and run, and knows neither a trainer nor where it goes.

A callback says *when* a measurement runs, ``lightning evaluate`` says *where* its tables go; both write what comes back
as a :class:`Result`. Source: own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from meddiff.evaluation.ranks import Ranks
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

#: A cell of a table; None is undefined.
Value = str | int | float | None
Row = Mapping[str, Value]


@dataclass
class Table:
    """Rows of a CSV file.

    Attributes:
        first: columns that come first, also when no row has them. The writer fills in what it knows and rows lack (the
            model's name, its images, its seed).
        only: leave all other columns out.
    """

    rows: Sequence[Row]
    first: tuple[str, ...] = ()
    only: bool = False


@dataclass
class Result:
    """What a measurement found, the same on every rank.

    Attributes:
        figures: name -> average, without a prefix.
        tables: name of a file -> its rows.
        controls: what the figures have to be read against; JSON values.
        images: index in the split -> an image that was drawn, uint8 (H, W, 3); those of this rank, if it keeps any.
    """

    figures: dict[str, float]
    tables: dict[str, Table] = field(default_factory=dict)
    controls: dict[str, object] = field(default_factory=dict)
    images: dict[int, NDArray[np.uint8]] = field(default_factory=dict)


class Measurement(Protocol):
    """One thing that is measured of a model on a split of a cohort.

    Attributes:
        show_progress: draw progress bars; on the first rank only.
    """

    show_progress: bool

    def check(self, split: LatentShardsDataset) -> None:
        """Say what is missing before anything long starts.

        Raises:
            UserError: it cannot be measured.
        """
        ...

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run over all ranks, to state the price before it is paid."""
        ...

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Measure.

        Args:
            out: folder in which work is kept so that a stopped run goes on; None keeps it in memory.

        Raises:
            UserError: as :meth:`check`, or results of other settings are in the way.
        """
        ...
