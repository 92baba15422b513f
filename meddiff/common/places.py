"""Where the suite's own configs, sweeps and assets lie: inside the installed package, or in the clone. Source: own."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
#: The shipped autoencoder that phantoms are encoded with.
PHANTOM_VAE = "assets/phantom_vae"
#: Folder names that are looked up in the suite when a path does not exist from here.
OWN = ("assets", "configs", "sweeps")


def at_home(value: object) -> object:
    """``value`` with ``~`` and ``~user`` at the beginning of its texts spelled out, in lists and mappings at any depth.

    A shell does so for ``--out ~/x`` but not for ``--out=~/x``, and nobody does for a config file. A user that the
    machine does not know stays as he is written, so that ``~5 cm`` in a caption remains what it says.

    Example:
        >>> at_home(["~/x", {"a": "b~", "n": 1}]) == [str(Path.home() / "x"), {"a": "b~", "n": 1}]
        True
    """
    if isinstance(value, str):
        return os.path.expanduser(value) if value.startswith("~") else value
    if isinstance(value, list | tuple):
        return type(value)(map(at_home, value))
    if isinstance(value, dict):
        return {key: at_home(part) for key, part in value.items()}
    return value


def locate(path: str | os.PathLike[str]) -> Path:
    """``path`` as it is when it exists from here; else the suite's own file of that name, where there is one.

    Only paths that begin with ``configs/``, ``sweeps/`` or ``assets/`` are looked up, so that nobody's data are found by
    accident.

    Example:
        >>> locate("configs/quickstart.yaml").is_file()
        True
        >>> locate("nowhere/at/all.yaml").as_posix()
        'nowhere/at/all.yaml'
    """
    here = Path(os.path.expanduser(path))
    if here.is_absolute() or here.exists() or not here.parts or here.parts[0] not in OWN:
        return here
    # A wheel carries configs/ and sweeps/ inside the package; in a clone they stand beside it, where a newcomer looks.
    candidates = [PACKAGE / here, PACKAGE.parent / here]
    return next((candidate for candidate in candidates if candidate.exists()), here)
