"""``RUNS/NAME`` of a sweep: which sweep lies there, and which settings are tried before it begins. Source: own."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from meddiff.common.bounded import parse_json
from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.common.outside import own_file
from meddiff.common.text_files import read_bytes
from meddiff.launch.parameters import Parameter, Values, nested
from meddiff.launch.parameters import Path as Names
from meddiff.launch.search import axis, quantile
from meddiff.launch.sweep_file import SweepFile, canonical

#: What the sweep is: its id, seed and definition.
ABOUT = "sweep.json"
#: Shares of the draws of a distribution that are tried: nearly its ends.
ENDS = (0.001, 0.999)


def open_sweep(folder: Path, sweep: SweepFile, seed: int | None) -> tuple[str, int]:
    """Begin a sweep in ``folder``, or go on with the one that lies there.

    Whoever calls this holds the lock of the folder.

    Args:
        seed: of random and Bayesian search; None: the one it began with, or 0.

    Returns:
        Its id and its seed.

    Raises:
        UserError: another sweep lies there: other parameters, command, method or seed.
    """
    file, definition = own_file(folder / ABOUT), json.loads(canonical(sweep.definition))
    if not file.is_file():
        sweep_id = secrets.token_hex(4)
        write_json(file, {"id": sweep_id, "seed": seed or 0, "definition": definition})
        return sweep_id, seed or 0
    try:
        found = parse_json(read_bytes(file))
        sweep_id, before, other = str(found["id"]), int(found["seed"]), dict(found["definition"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        raise UserError(f"{file} is not what a sweep wrote: give another --name, or remove {folder}.") from None
    different = [key for key in definition if definition[key] != other.get(key)]
    if different:
        raise UserError(
            f"{folder} holds a sweep with other {' and '.join(different)} than {sweep.path} says: give another --name."
        )
    if seed is not None and seed != before:
        raise UserError(
            f"{folder} holds a sweep that began with --seed {before}: leave --seed out, or give another --name."
        )
    return sweep_id, before


def settings_to_try(parameters: Mapping[Names, Parameter]) -> list[Values]:
    """Settings in which every choice of every parameter comes once, and of ranges and distributions nearly both ends.

    The whole grid would be many more, and what the command refuses is almost always a single value.
    """
    axes = {
        path: list(axis(one)) if one.kind in ("constant", "categorical") else [quantile(one, at) for at in ENDS]
        for path, one in parameters.items()
    }
    most = max(map(len, axes.values()))
    return [nested({path: values[place % len(values)] for path, values in axes.items()}) for place in range(most)]
