"""Tables of ``lightning evaluate mechanism`` in a run folder, with values that tell where they came from."""

from pathlib import Path

from meddiff.evaluation.mechanism import FIRST
from meddiff.reports.page.mechanism import KEYS, TOKENS
from meddiff.runs.tables import write_table

IMAGES = (0, 8000, 16000)


def value_of(key: str, images: int, seed: int = 0) -> float:
    """What :func:`write_mechanism` writes for a figure."""
    return round(KEYS.index(key) / 10 + images / 1e5 + seed / 100, 4)


def write_mechanism(run: Path, seed: int = 0) -> Path:
    """``RUN/evaluation/000016000/mechanism*.csv``; the folder."""
    out = run / "evaluation" / f"{IMAGES[-1]:09d}"
    out.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for images in IMAGES:
        when = {"model": "m", "seed": seed, "images": images, "step": images // 16}
        for key in KEYS:
            value, figure = value_of(key, images, seed), key.removeprefix("mechanism/")
            if figure in ("attention/function", "cnr/padding/confounder"):
                continue  # undefined, as in a text that has no such token
            rows.append({**when, "figure": figure, "value": value, "low": value - 0.05, "high": value + 0.05, "n": 20})
            if figure.startswith("moved/"):
                rows.append({**when, "figure": f"{figure}/apart", "value": 1.25, "n": 20})
            if figure.startswith("probe/"):
                rows.append({**when, "figure": f"{figure}/chance", "value": 0.25, "n": 20})
                rows += [{**when, "figure": f"{figure}/untrained", "value": 0.375, "n": 20}] if not images else []
        rows.append({**when, "figure": "cnr/start/finding", "value": None, "n": 0})
    write_table(out / "mechanism.csv", rows, FIRST["mechanism"])
    attention = [
        {"images": images, "step": 0, "layer": layer, "timestep": t, "place": token, "share": images / 1e5 + t / 1e4 + layer}
        for images in IMAGES for t in (1, 501) for layer in (0, 1) for token in TOKENS
    ]  # fmt: skip
    write_table(out / "mechanism_attention.csv", attention, FIRST["mechanism_attention"])
    cnr = [
        {"images": 16000, "step": 0, "role": token, "target": target, "timestep": t, "value": 0.5, "n": 3}
        for t in ("all", "1", "501") for token in TOKENS for target in ("finding", "confounder")
    ]  # fmt: skip
    write_table(out / "mechanism_cnr.csv", cnr, FIRST["mechanism_cnr"])
    return out
