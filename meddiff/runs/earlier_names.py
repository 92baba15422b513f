"""What measurements were called before, for run folders of that time: every reader of names goes through here. Source: own."""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")
#: The last part of an earlier name -> what it is called now. "FID" means Inception's features; these are of a classifier.
EARLIER = {"fid_domain": "fd_domain"}


def current_name(name: str) -> str:
    """The name of today.

    Example:
        >>> current_name("fidelity/pndm/fid_domain"), current_name("fidelity/fid_inception")
        ('fidelity/pndm/fd_domain', 'fidelity/fid_inception')
    """
    before, slash, last = name.rpartition("/")
    return before + slash + EARLIER.get(last, last)


def current_names(row: Mapping[str, Value]) -> dict[str, Value]:
    """A row under the names of today; of what stands there under both, today's cell unless it is empty.

    Example:
        >>> current_names({"images": "16", "fidelity/fid_domain": "9", "fidelity/fd_domain": ""})
        {'images': '16', 'fidelity/fd_domain': '9'}
    """
    found: dict[str, Value] = {}
    for name, value in row.items():
        now = current_name(name)
        if now not in found or (now == name and value not in ("", None)) or found[now] in ("", None):
            found[now] = value
    return found


def current_controls(controls: Mapping[str, object]) -> dict[str, object]:
    """``controls.json`` or ``summary.json``, side by side, under the names of today.

    Example:
        >>> current_controls({"fidelity": {"n": 500, "fid_domain": {"noise": 9.0}}})
        {'fidelity': {'n': 500, 'fd_domain': {'noise': 9.0}}}
    """
    return {side: current_names(found) if isinstance(found, Mapping) else found for side, found in controls.items()}
