"""Tables and pictures of ``lightning evaluate prototypes`` and ``shortcut`` in a run folder."""

import json
from pathlib import Path

import numpy as np

from meddiff.evaluation.prototype_drawings import EMERGENCE
from meddiff.evaluation.prototype_grounding import COLUMNS
from meddiff.evaluation.shortcut import FIRST
from meddiff.runs.tables import write_table
from tests.builders.run_folders import png

STEPS = (950, 700, 450, 200, 0)
NAMES = {4: "Edema", 7: "not <b>Pneumonia</b>", 12: ""}


def write_prototypes(run: Path, images: int = 16000) -> None:
    """Three prototypes, the second with a name that is markup, the third without one."""
    out, media = run / "evaluation" / f"{images:09d}", run / "media" / "prototypes"
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    entries = []
    for place, (number, name) in enumerate(NAMES.items()):
        for curve, top in (("paired", 1.0 + place), ("low_pass", 0.5), ("random", 0.05), ("clean", 0.2)):
            for i, step in enumerate(STEPS):
                value = top * min(1.0, max(0.0, (i - place) / 2))
                rows.append(
                    {"prototype": number, "curve": curve, "timestep": step, "value": value, "n": 8}
                    | {"low": value - 0.1, "high": value + 0.1}
                )
        files = {part: f"{images:09d}-{number:04d}-{part}.png" for part in ("image", "drawn", "patch")}
        for file in files.values():
            png(media / file, rng.integers(0, 255, (64, 64, 3)).astype(np.uint8))
        png(media / f"{number}-real.png", rng.integers(0, 255, (64, 64, 3)).astype(np.uint8))
        entries.append(
            {
                "prototype": number,
                "name": name,
                "kind": "label",
                "concept": "tube",
                "auroc": 0.8 - 0.1 * place,
                "p": 0.001,
            }
            | {"before": 0.31, "after": 1.52 + place, "odd": 1.7, "t_half": 450.0 if place < 2 else None, "key": "a"}
            | {"t_half_low": 400.0, "t_half_high": 500.0, "natural": [{"image": f"{number}-real.png", "value": 2.25}]}
            | files
        )
    (media / f"{images:09d}.json").write_text(json.dumps(entries))
    write_table(out / "prototype_emergence.csv", rows, EMERGENCE)
    write_table(out / "prototypes.csv", [{"prototype": number, "name": name} for number, name in NAMES.items()])
    figures = {
        "latent_auroc": 0.8125,
        "latent_auroc_untrained": 0.6875,
        "fd_conditional_heldout_domain": 12.5,
        "odd": 1.7,
    }
    write_table(out / "prototype_figures.csv", [{"figure": name, "value": value} for name, value in figures.items()])
    boxed = [
        {
            "source": source,
            "class": "all",
            "figure": figure,
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "n": 80,
        }
        for source, value in (("prototype", 0.9), ("prior", 0.7), ("untrained", 0.2))
        for figure in ("cnr", "auroc", "top1")
    ]
    write_table(out / "prototype_grounding.csv", boxed, COLUMNS)


def write_shortcut(run: Path, images: int = 16000) -> None:
    """An index of 0.375 with its parts."""
    out = run / "evaluation" / f"{images:09d}"
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {"of": "scorers", "figure": "own", "value": 0.9, "n": 100},
        {
            "of": "biased",
            "figure": "leak",
            "value": 0.5,
            "low": 0.4,
            "high": 0.6,
            "n": 200,
            "edited": "4 (0.81) 9 (0.77)",
        },
        {"of": "balanced", "figure": "leak", "value": 0.125, "low": 0.0, "high": 0.2, "n": 200, "edited": "1 (0.79)"},
        {"of": "index", "figure": "index", "value": 0.375, "low": 0.25, "high": 0.5, "n": 200},
    ]
    pair = {"finding": "Edema", "confounder": "a <tube>"}
    write_table(out / "shortcut.csv", [{**pair, **row} for row in rows], FIRST)
