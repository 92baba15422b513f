"""Where W&B puts what waits to be sent: beside the run's own log, and not in the home folder. Source: own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb import Run

VARIABLE = "WANDB_DATA_DIR"


@contextmanager
def kept_beside(run: "Run") -> Iterator[None]:
    """Copies of tables and artifacts made within go to ``wandb/artifacts`` of the run's folder, unless the user says where.

    W&B's own place is the home folder: full or read-only on many clusters, and somewhere else than the run.
    """
    if VARIABLE in os.environ:
        yield
        return
    os.environ[VARIABLE] = str(Path(run.dir).parents[1])
    try:
        yield
    finally:
        del os.environ[VARIABLE]
