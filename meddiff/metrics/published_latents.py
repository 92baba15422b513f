"""Published values of latent quality, printed beside what was measured. No torch: reports need nothing else.

Source: Weng et al. (ICLR 2026), tables 1 and 2, as far as secondary sources give them (spec/patronus_and_visual_analysis.md
A8). "learned s" in print may mean activations of real test images (``fid_cond_teststate`` here) or of the trained prior
(``fid_uncond``): it does not say, so both measured figures stand beside it, under the names of how they were made.
"""

import csv
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from meddiff.common.errors import UserError

TABLE = Path(__file__).parent / "published" / "latent_quality.csv"
#: Column -> names under which it is measured.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "tad": ("tad",),
    "captured": ("captured",),
    "latent_auroc": ("latent_auroc",),
    "latent_accuracy": ("latent_accuracy",),
    "fid": ("fid_cond_teststate", "fid_uncond"),
}


@cache
def published() -> tuple[dict[str, str], ...]:
    """Rows as text; an empty cell was not printed.

    Example:
        >>> [row["latent_auroc"] for row in published() if row["method"] == "InfoDiffusion" and row["dataset"] == "celeba"]
        ['0.84']
    """
    with TABLE.open(newline="", encoding="utf-8") as stream:
        return tuple(csv.DictReader(stream))


def datasets() -> tuple[str, ...]:
    """Data sets with published values."""
    return tuple(dict.fromkeys(row["dataset"] for row in published()))


def beside_published(measured: Mapping[str, float], dataset: str) -> list[dict[str, str]]:
    """Rows ``source`` and figures as text, the published ones first, ours last; the columns are the same in every row.

    Args:
        measured: figures under the names of :data:`COLUMNS`; those with ``_low`` and ``_high`` show their interval.
        dataset: one of :func:`datasets`; of any other, what was measured stands alone.

    Raises:
        UserError: nothing was measured that is in a column.

    Example:
        >>> rows = beside_published({"latent_auroc": 0.8512, "latent_auroc_low": 0.84, "latent_auroc_high": 0.86}, "celeba")
        >>> rows[2]["source"], rows[2]["latent_auroc"], rows[-1]["source"], rows[-1]["latent_auroc"]
        ('Patronus, as published', '0.87', 'measured here', '0.851 (0.840 to 0.860)')
    """
    named = {name for names in COLUMNS.values() for name in names}
    if not named & measured.keys():
        raise UserError(f"nothing to compare was measured; one of {', '.join(sorted(named))} is needed.")
    rows = []
    for row in published():
        if row["dataset"] == dataset:
            procedure = f' "w/ {row["procedure"]}"' if row["procedure"] else ""
            rows.append(
                {"source": f"{row['method']}{procedure}, as published", **{name: row[name] for name in COLUMNS}}
            )
    ours = {column: _shown(measured, names[0]) for column, names in COLUMNS.items() if column != "fid"}
    drawn = [name for name in COLUMNS["fid"] if math.isfinite(measured.get(name, math.nan))]
    rows += [{"source": f"measured here ({name})", **ours, "fid": _shown(measured, name)} for name in drawn]
    if not drawn:
        rows.append({"source": "measured here", **ours, "fid": ""})
    shown = [column for column in COLUMNS if any(row[column] for row in rows)]
    return [{name: row[name] for name in ("source", *shown)} for row in rows]


def _shown(measured: Mapping[str, float], name: str) -> str:
    value, low, high = (measured.get(name + end, math.nan) for end in ("", "_low", "_high"))
    if not math.isfinite(value):
        return ""
    ends = f" ({low:.3f} to {high:.3f})" if math.isfinite(low) and math.isfinite(high) else ""
    return f"{value:.3f}{ends}"


def as_text(rows: list[dict[str, str]]) -> str:
    """Rows of :func:`beside_published` as lines for a terminal, columns one below another."""
    names = list(rows[0])
    lines = [names, *([row[name] for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
