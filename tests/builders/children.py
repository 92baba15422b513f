"""Programs that tests start as processes of their own."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """For a child: it imports this checkout from any folder, and has one thread as this process has.

    Results are compared byte for byte with those of this process, and sums depend on the number of threads.
    """
    below = os.environ.get("PYTHONPATH")
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), below] if below else [str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
