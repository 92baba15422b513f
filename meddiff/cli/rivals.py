"""What ``lightning evaluate rivals`` prints."""

from meddiff.cli.controls import number
from meddiff.common.outside import markdown_cell
from meddiff.evaluation.measurement import Result, Row

#: Column of the printed table -> the figure of it.
PRINTED = {"CNR": "cnr", "gain over absent": "gain_absent", "gain": "gain"}
PLAIN = {"macro CNR": "macro_cnr", "AUROC": "auroc", "Top-1": "top1", "mIoU": "miou_biovil"}


def rivals_text(result: Result) -> str:
    """Markdown: a row a preset, intervals of 95 % over images, and its price; then the layers that were chosen."""
    heads = ["", *PRINTED, *PLAIN, "n", "U-Net evaluations", "seconds"]
    lines = ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in result.tables["rivals"].rows:
        cells = [markdown_cell(str(row["preset"])), *(_with_ends(row, name) for name in PRINTED.values())]
        cells += [number(row.get(name)) for name in PLAIN.values()]
        cells += [f"{float(row[name] or 0):.0f}" for name in ("n", "evaluations")] + [
            f"{float(row['seconds'] or 0):.3f}"
        ]
        lines.append("| " + " | ".join(cells) + " |")
    layers = result.tables.get("rival_layers")
    for half in (0, 1) if layers is not None else ():
        rows = [row for row in layers.rows if row["half"] == half] if layers is not None else []
        chosen = [f"{row['part']} of {row['pixels']} pixels" for row in rows if row["chosen"]]
        told = number(rows[0]["held_out_cnr"]) or "none"
        lines.append(f"layers for half {half + 1}, chosen by the other: {', '.join(chosen)}; CNR there {told}")
    return "\n".join(lines)


def _with_ends(row: Row, name: str) -> str:
    """``0.51 [0.40, 0.62]``."""
    value, low, high = row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high")
    ends = f" [{low:.2f}, {high:.2f}]" if isinstance(low, float) and isinstance(high, float) else ""
    return number(value) + ends
