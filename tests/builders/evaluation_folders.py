"""Small evaluation folders in the real file formats, from random draws with known effects."""

import math
from collections import defaultdict
from pathlib import Path
from statistics import mean

import numpy as np

from meddiff.common.draws import generator
from meddiff.common.files import write_json
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.reports.paper.cells import Cell, Table
from meddiff.runs.tables import read_table, write_table

#: phrases of each class
SIZES = dict(zip(FINDINGS, (6, 24, 10, 5, 8, 9, 14, 18), strict=True))
WORDS = {"Edema": ("pulmonary", "edema"), "Pneumothorax": ("small", "apical", "pneumothorax")}
FIRST = ("key", "class", "phrase", "model", "images", "seed", "words", "cut")


def effect(side: str, label: str) -> float:
    """The true CNR of a class: frozen is better everywhere but for pneumothorax."""
    place = FINDINGS.index(label)
    return {"frozen": 1.2 - 0.05 * place, "learnable": 0.1 + 0.04 * place, "base": 0.3}[side] + (
        0.9 if side == "learnable" and label == "Pneumothorax" else 0.0
    )


def make_evaluation(
    run: Path,
    side: str = "frozen",
    seed: int = 0,
    prompt: str = "impression",
    name: str = "trial",
    cohort: str = "phantom",
    images: int = 16000,
    evaluation: str | None = None,
    undefined: int = 1,
    shift: float = 0.0,
) -> Path:
    """Write RUN/evaluation/NAME with every file, and RUN/config.yaml.

    Args:
        undefined: phrases of cardiomegaly whose maps are constant.
        shift: added to every CNR.
    """
    out = run / "evaluation" / (evaluation or f"{images:09d}")
    who = {"model": name, "images": images, "seed": seed}
    run.mkdir(parents=True, exist_ok=True)
    frozen = str(side != "learnable").lower()
    (run / "config.yaml").write_text(
        f"name: {name}\nseed_everything: {seed}\nmodel:\n  init_args:\n    freeze_text_encoder: {frozen}\n"
        f"data:\n  init_args:\n    prompt: {prompt}\n"
    )
    about = {**who, "run": str(run), "freeze_text_encoder": side != "learnable", "prompt": prompt, "cohort": cohort}
    write_json(out / "evaluation.json", {**about, "parts": {"grounding": {"timesteps": 8, "seed": 0}}})
    for table in ("coco",) if about["cohort"] == "mscoco" else ("grounding", "impressions"):
        rows = _grounding(side, seed, "grounding" if table == "coco" else table, undefined, shift)
        write_table(out / f"{table}.csv", [{**row, **who} for row in rows], FIRST)
    write_table(out / "words.csv", _words(side, seed), ("key", "class", "word", "variant", "cnr"))
    _write_images(out, side, seed)
    return out


def _grounding(side: str, seed: int, table: str, undefined: int, shift: float) -> list[dict[str, object]]:
    """CNR = class effect + image (shared by models and seeds) + training + noise."""
    rows = []
    for label, n in SIZES.items():
        training = generator(side, seed, label, "training").normal(0, 0.05)
        for i in range(n if table == "grounding" else n - n // 4):
            key = f"p{i % 12:02d}"  # an image has phrases of several classes, and of one class up to two
            image = generator(key, "image").normal(0, 0.2)
            cnr = effect(side, label) + shift + image + training + generator(side, seed, table, label, i).normal(0, 0.3)
            row = {
                "key": key, "class": label, "phrase": f"{label.lower()} number {i}", "words": label.split()[-1].lower(),
                "cut": "", "cnr": cnr, "auroc": 1 / (1 + math.exp(-1.5 * cnr)), "top1": float(cnr > 0.6), "miou": 0.3,
                "eos_cnr": cnr - 0.2,
            }  # fmt: skip
            if label == "Cardiomegaly" and i < undefined:
                row |= {"cnr": None, "auroc": None, "top1": None, "miou": None}
            rows.append(row)
    return rows


def _words(side: str, seed: int) -> list[dict[str, object]]:
    rows = []
    for label, words in WORDS.items():
        for i in range(30):
            for place, word in enumerate(words):
                if word == "small" and i >= 20:
                    continue
                value = effect(side, label) - 0.3 * place + 0.01 * seed + 0.001 * i
                rows.append({"key": f"p{i}", "class": label, "word": word, "variant": "first", "cnr": value})
                rows.append({"key": f"p{i}", "class": label, "word": word, "variant": "all", "cnr": value + 0.1})
            for word, value in (("SOS", -0.5), ("EOS", 0.7)):
                rows.append({"key": f"p{i}", "class": label, "word": word, "variant": "all", "cnr": value})
    return rows


def _write_images(out: Path, side: str, seed: int) -> None:
    base = {"frozen": 75.5, "learnable": 61.9, "base": 237.6}[side]
    rows = []
    for metric, factor in (
        ("fid_inception_paper", 1.0),
        ("fid_inception", 0.8),
        ("fid_xrv224", 0.1),
        ("fd_domain", 0.2),
    ):
        for control, value in (("", base + seed), ("real_vs_real", 3.0), ("noise", 400.0)):
            row = {
                "metric": metric,
                "value": value * factor,
                "n": 200,
                "protocol": f"{metric[4:]}/1",
                "control": control,
            }
            rows.append({**row, "seed": 0})
    write_table(out / "fidelity.csv", rows, ("metric", "value", "n", "protocol", "control", "seed"))
    pairs = [
        {"protocol": protocol, "group": f"g{group}", "pair": f"{group}|{pair}", "value": value}
        for protocol, centre in (("standard", 0.4), ("paper", 0.12))
        for group in range(10)
        for pair in range(6)
        for value in [centre + 0.03 * generator(side, seed, protocol, group).normal() + 0.001 * pair]
    ]
    write_table(out / "diversity.csv", [*pairs, {**pairs[0], "value": None}], ("protocol", "group", "pair", "value"))
    scores: list[dict[str, object]] = []
    for source, strength in (("real", 2.0), ("drawn", 1.0 if side != "base" else 0.0)):
        healthy = [f"{NO_FINDING}-{i}" for i in range(12)]
        for label in FINDINGS:
            for key, is_positive in [(f"{label}-{i}", 1) for i in range(10)] + [(key, 0) for key in healthy]:
                rng: np.random.Generator = generator(side, seed, source, label, key)
                score = round(float(rng.normal(strength * is_positive, 1)), 1)  # one decimal: ties
                scores.append({"source": source, "class": label, "key": key, "label": is_positive, "score": score})
    write_table(out / "classifier.csv", scores, ("source", "class", "key", "label", "score"))


def column(table: Table, head: str, *labels: str) -> dict[str, Cell]:
    """Last label -> cell of a column, in the rows that begin with ``labels``."""
    place = table.columns.index(head)
    return {
        str(row[table.labels - 1].value): row[place]
        for row in table.rows
        if [cell.value for cell in row[: len(labels)]] == list(labels)
    }


def phrases(run: Path, name: str = "grounding") -> list[dict[str, str]]:
    return [row for row in read_table(run / f"evaluation/000016000/{name}.csv") if row["cnr"]]


def by_class(rows: list[dict[str, str]], metric: str) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[row["class"]].append(float(row[metric]))
    return {name: mean(found) for name, found in values.items()}
