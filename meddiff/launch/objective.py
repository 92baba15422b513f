"""What the runs of a sweep have measured, from their ``metrics.jsonl``. Source: own."""

import math
import re
from pathlib import Path

from meddiff.runs import names
from meddiff.runs.metrics_file import MetricsRow, read_metrics
from meddiff.runs.values import number

#: Names of which the smallest value is the best one; of those of BEST_IS_MOST the greatest, of others none.
BEST_IS_LEAST = re.compile(r"fidelity/(fd|fid|kid)_\w+|(train|val)/loss")
BEST_IS_MOST = re.compile(r"grounding/(macro_)?(cnr|auroc|top1|miou)")


class Measured:
    """The rows of one run, read again when the file has changed.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / names.METRICS
        self._seen: tuple[int, int] | None = None
        self._rows: list[MetricsRow] = []

    @property
    def rows(self) -> list[MetricsRow]:
        """All rows so far."""
        try:
            found = self.file.stat()
        except OSError:
            self._seen, self._rows = None, []
            return []
        seen = (found.st_size, found.st_mtime_ns)
        if seen != self._seen:
            self._rows, self._seen = read_metrics(self.file), seen
        return self._rows

    def values(self, name: str) -> list[float]:
        """Finite values of a metric in logging order."""
        return [value for row in self.rows if (value := number(row.get(name))) is not None]

    def newest(self, name: str) -> float | None:
        """The last finite value; None where there is none."""
        return next((value for row in reversed(self.rows) if (value := number(row.get(name))) is not None), None)

    def best(self, name: str, goal: str) -> float | None:
        """The least or greatest finite value."""
        values = self.values(name)
        return (max(values) if goal == "maximize" else min(values)) if values else None

    def figures(self) -> list[str]:
        """Names that were measured with a finite value, sorted: ``room/figure``, not the parts of one."""
        return sorted(
            {
                name
                for row in self.rows
                for name, value in row.items()
                if name.count("/") == 1 and number(value) is not None
            }
        )


def goal_of(name: str) -> str | None:
    """Whether less or more of a known figure is better; None where that is not known.

    Example:
        >>> goal_of("fidelity/fd_domain"), goal_of("grounding/macro_cnr"), goal_of("throughput/mfu")
        ('minimize', 'maximize', None)
    """
    if BEST_IS_LEAST.fullmatch(name):
        return "minimize"
    return "maximize" if BEST_IS_MOST.fullmatch(name) else None


def finite(values: list[float | None]) -> list[float] | None:
    """The values, if each is there and finite."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    return found if len(found) == len(values) else None
