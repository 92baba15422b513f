"""Tables and maps of ``lightning explain`` in a run folder, with values that tell where they came from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from meddiff.evaluation.saliency_scores import FIRST
from meddiff.runs.tables import write_table
from tests.builders.run_folders import png

STEPS = (741, 381, 21)


def write_saliency(run: Path, shift: float, slow: Mapping[str, Sequence[int]] | None = None) -> None:
    """``RUN/evaluation/000016000/saliency*.csv`` and the maps of two phrases.

    Args:
        slow: kinds of maps that are there at few timesteps.
    """
    out = run / "evaluation" / "000016000"
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = [
        {"tool": tool, "layer": layer, "class": label, "timestep": step, "figure": figure, "images": 16000}
        | {"value": shift + i / 10 + step / 1e4, "low": shift - 1, "high": shift + 1, "n": 20}
        for i, tool in enumerate(("attention", "df_cam", "untrained"))
        for layer in ("all", "mid_block")
        for label in ("all", "macro", "Edema")
        for step in STEPS
        for figure in ("cnr", "gain/absent", "cnr/absent")
    ]
    rows.append({"tool": "prior", "layer": "all", "class": "all", "figure": "cnr", "value": 0.625, "n": 20})
    write_table(out / "saliency.csv", rows, FIRST)
    when = {"layer": "all", "class": "all", "figure": "gain/absent", "best_timestep": 381, "value": shift, "n": 20}
    write_table(out / "saliency_when.csv", [{"tool": "attention", **when, "known_from": 741, "known_to": 21}])
    media = run / "media" / "saliency"
    media.mkdir(parents=True)
    png(media / "image.png", np.zeros((8, 8), np.uint8))
    entries = []
    for key in ("a", "b"):
        for tool in ("attention", "df_cam"):
            for step in (slow or {}).get(tool, STEPS):
                name = f"{key}-{tool}-{step}.png"
                png(media / name, np.full((8, 8, 3), step % 251, np.uint8))
                entries.append(
                    {"key": key, "class": "Edema", "phrase": f"phrase {key} <b>", "tool": tool, "timestep": step}
                    | {"image": "image.png", "map": name, "mask": None, "word": "edema", "size": [8, 8]}
                    | {"boxes": [[1, 1, 3, 3]], "cnr": step / 100, "hit": 1.0}
                )
    (media / "000016000.json").write_text(json.dumps(entries))
