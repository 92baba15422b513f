"""What ``lightning evaluate controls`` needs beside the other measurements: networks to compare with, and its printing."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from meddiff.common.errors import UserError
from meddiff.common.outside import markdown_cell, terminal
from meddiff.evaluation.controls import FIRST, ControlsOptions, Others
from meddiff.evaluation.measurement import Result, Value
from meddiff.reports.page.wording import gain_name

if TYPE_CHECKING:
    from meddiff.runs.opened import Opened

#: Columns of the printed table.
SHOWN = FIRST[1:]


def control_networks(run: "Opened", options: ControlsOptions) -> Others:
    """The run's start and its network untrained, and, for a run on phantoms, cohorts of twins and of several findings."""
    from meddiff.phantoms import PhantomOptions
    from meddiff.preparation.control_cohorts import crowded_cohort, mirrored_cohort
    from meddiff.shards.dataset import LatentShardsDataset

    data = run.data
    boxed = data.manifest.samples(data.train_split) > 0  # shards for a published model may have no split of training
    others = Others(train=data.dataset(data.train_split) if boxed else None)
    try:
        if options.networks:
            others.base, others.untrained = run.before(), run.untrained()
    except UserError as error:  # the sources may be gone; everything else can still be measured
        print(terminal(f"without base and untrained weights: {error}"))
    phantom, vae = getattr(data, "phantom", None), getattr(data, "vae", None)
    if isinstance(phantom, PhantomOptions) and isinstance(vae, str):
        if options.mirrored:
            others.mirrored = LatentShardsDataset(mirrored_cohort(phantom, vae, options.mirrored), "grounding")
        if options.crowded:
            others.crowded = LatentShardsDataset(crowded_cohort(phantom, vae, options.crowded), "grounding")
    return others


def controls_text(result: Result) -> str:
    """Markdown: the gain under each control, every row of the controls, then whether words tell findings apart and maps follow
    the finding."""
    lines = [*gain_lines(result), "", "| | " + " | ".join(SHOWN) + " |", "|---|" + "---|" * len(SHOWN)]
    for row in result.tables["controls"].rows:
        cells = [number(row.get(column)) for column in SHOWN]
        lines.append(f"| {markdown_cell(str(row['control']).replace('_', ' '))} | " + " | ".join(cells) + " |")
    compared = result.tables.get("own_first")
    for row in compared.rows if compared is not None else ():
        lines.append(f"{terminal(row['network'])}: " + "; ".join(sentences(row)))
    return "\n".join(lines)


def gain_lines(result: Result) -> list[str]:
    """What is left of the trained model's CNR under its own controls; nothing where none was measured."""
    table = result.tables.get("gain")
    if table is None or not table.rows:
        return []
    lines = ["", "| grounding gain | gain | 95 % interval | CNR | CNR under the control | askings |", "|---" * 6 + "|"]
    for row in table.rows:
        low, high = row["low"], row["high"]
        ends = f"[{low:.2f}, {high:.2f}]" if isinstance(low, float) and isinstance(high, float) else "none"
        cells = [number(row["gain"]), ends, number(row["cnr"]), number(row["control_cnr"]), f"{row['n']:.0f}"]
        lines.append(f"| {gain_name(str(row['control']))} | " + " | ".join(cells) + " |")
    return lines


def number(value: Value) -> str:
    """Two decimals, or nothing."""
    return f"{value:.2f}" if isinstance(value, float) else ""


def sentences(row: Mapping[str, Value]) -> list[str]:
    """What pairs and twins show of one network."""
    found = []
    if "first" in row:
        found.append(
            f"own finding first: {percent(row, 'first', 'low', 'high')} of {row['pairs']:.0f} pairs of findings "
            f"(CNR {row['own']:.2f} and {row['other']:.2f}; end token {100 * float(row['eos_first'] or 0):.0f} %)"
        )
    if "moved" in row:
        found.append(
            f"the map moves with the finding in {percent(row, 'moved', 'moved_low', 'moved_high')} of {row['twins']:.0f} "
            f"mirrored pairs (CNR {row['own_place']:.2f} at its place, {row['twins_place']:.2f} at the twin's)"
        )
    return found


def percent(row: Mapping[str, Value], *names: str) -> str:
    """``64 % [61, 67]``: a share and its 95 % interval."""
    share, low, high = (100 * float(value) if (value := row[name]) is not None else math.nan for name in names)
    return f"{share:.0f} %" + (f" [{low:.0f}, {high:.0f}]" if math.isfinite(low) else " (too few for an interval)")
