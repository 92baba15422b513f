"""Where the suite's own configs and assets lie: inside the installed package, or in the clone. Source: own."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
#: Folder names that are looked up in the suite when a path does not exist from here.
OWN = ("assets", "configs")


def locate(path: str | os.PathLike[str]) -> Path:
    """``path`` as it is when it exists from here; else the suite's own file of that name, where there is one.

    Only paths that begin with ``configs/`` or ``assets/`` are looked up, so that nobody's data are found by accident.

    Example:
        >>> locate("configs/quickstart.yaml").is_file()
        True
        >>> locate("nowhere/at/all.yaml").as_posix()
        'nowhere/at/all.yaml'
    """
    here = Path(os.path.expanduser(path))
    if here.is_absolute() or here.exists() or not here.parts or here.parts[0] not in OWN:
        return here
    # A wheel carries configs/ inside the package; in a clone it stands beside it, where a newcomer looks.
    candidates = [PACKAGE / here, PACKAGE.parent / here]
    return next((candidate for candidate in candidates if candidate.exists()), here)
