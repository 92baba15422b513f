"""Small run folders in the real file formats, with pictures that look like something."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from meddiff.common.findings import FINDINGS

CLASSES = FINDINGS
WORDS = ("atelectasis", "cardiomegaly", "consolidation", "edema", "opacity", "effusion", "pneumonia", "pneumothorax")
PHRASES = 20  # of each class
EXTRA = ("mask_cnr", "mask_macro_cnr", "eos_cnr", "confounder_cnr", "own_beats_other", "fallback", "n")


def png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def blob(size: int, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """A soft ellipse, 1 in its middle."""
    grid = np.mgrid[0:size, 0:size] / size
    return np.exp(-(((grid[1] - x) / rx) ** 2) - ((grid[0] - y) / ry) ** 2)


def chest(size: int, rng: np.random.Generator) -> np.ndarray:
    """A chest in the making."""
    image = 40 + 110 * blob(size, 0.5, 0.55, 0.55, 0.7) - 95 * blob(size, 0.3, 0.45, 0.16, 0.3)
    image += -95 * blob(size, 0.7, 0.45, 0.16, 0.3) + 70 * blob(size, 0.56, 0.62, 0.14, 0.18)
    return image + rng.normal(0, 5, (size, size))


def heat(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """An overlay as the gallery callback draws it."""
    colour = np.stack([255 * attention, 160 * attention**2, 60 * (1 - attention)], -1)
    return 0.55 * image[..., None] + 0.6 * colour


def make_run(
    folder: Path,
    name: str = "quickstart",
    evaluations: int = 5,
    overlays: int = 8,
    samples: int = 6,
    frozen: bool = True,
    seed: int = 0,
    size: int = 64,
    command: str | None = None,
    phrase: str | None = None,
) -> Path:
    """A run folder with everything in it; CNR and distance follow curves like those of real runs."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, object] = {
        "name": name,
        "seed_everything": seed,
        "trainer": {"max_steps": 1000, "precision": "32-true"},
        "model": {"init_args": {"freeze_text_encoder": frozen, "learning_rate": 1e-3}},
        "data": {"class_path": "datamodules.phantom.PhantomLatentsDataModule", "init_args": {"batch_size": 16}},
    }
    if command:
        config["command"] = command
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    step_of = [round(i * 1000 / max(1, evaluations - 1)) for i in range(evaluations)]
    _metrics(folder, rng)
    columns = ["step", "images"]
    columns += [f"grounding/{m}{k}" for k in ("cnr", "auroc", "top1", "miou") for m in ("", "macro_")]
    columns += [f"grounding/{c}/cnr" for c in CLASSES] + [f"grounding/{name}" for name in EXTRA]
    columns += ["fidelity/fd_domain", "fidelity/kid_domain", "fidelity/n"]
    rows, top = [], 1.15 if frozen else 0.65
    for step in step_of:
        done = 1 - math.exp(-step / 330)
        fall = 1.0 if frozen else 1 - 0.45 * max(0.0, (step - 500) / 500)
        cnr = top * done * fall + rng.normal(0, 0.02)
        row: dict[str, float] = {"step": step, "images": 16 * step}
        for metric, value in (
            ("cnr", cnr),
            ("auroc", 0.5 + 0.3 * cnr / 1.2),
            ("top1", 0.1 + 0.42 * cnr / 1.2),
            ("miou", 0.2 + 0.1 * cnr),
        ):
            row[f"grounding/{metric}"], row[f"grounding/macro_{metric}"] = value * 0.97, value
        row |= {f"grounding/{c}/cnr": cnr * (0.6 + 0.1 * i) for i, c in enumerate(CLASSES)}
        extra = (1.1 * cnr, 1.15 * cnr, 0.3 * cnr, 0.2 * cnr, min(1.0, 0.5 + 0.3 * cnr), 0.0, 160)
        row |= {f"grounding/{name}": value for name, value in zip(EXTRA, extra, strict=True)} | {"fidelity/n": 500}
        row["fidelity/fd_domain"] = 6 + (170 if frozen else 166) * math.exp(-step / (240 if frozen else 190))
        row["fidelity/kid_domain"] = row["fidelity/fd_domain"] / 900
        rows.append(row)
    with (folder / "tradeoff.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    _phrases(folder, rows[-1], rng)
    _controls(folder)
    for step in step_of:
        _attention(folder, 16 * step, step / 1000 * (1 if frozen else 0.6), overlays, size, phrase)
        _samples(folder, 16 * step, step / 1000, samples, size, seed)
    return folder


def copy_run(run: Path, folder: Path) -> Path:
    """A copy that may be spoilt, ``FOLDER/quickstart/copy``."""
    return Path(shutil.copytree(run, folder / "quickstart" / "copy"))


def _metrics(folder: Path, rng: np.random.Generator) -> None:
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as stream:
        for step in range(9, 1000, 10):
            row: dict[str, float] = {"step": step, "time": 1795251049.9 + 0.34 * step}
            row |= {
                "train/loss": 0.07 + 0.9 * math.exp(-step / 70) + rng.normal(0, 0.004),
                "throughput/images_per_s": 47.0,
            }
            stream.write(json.dumps(row) + "\n")
            if step % 250 == 249:
                stream.write(
                    json.dumps({"step": step, "time": row["time"], "val/loss": 0.072 + 0.3 * math.exp(-step / 150)})
                    + "\n"
                )
        stream.write('{"step": 1000, "train/lo')  # cut off by a kill


def _phrases(folder: Path, last: dict[str, float], rng: np.random.Generator) -> None:
    (folder / "grounding").mkdir(exist_ok=True)
    file = folder / "grounding" / f"{last['images']:09d}.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["key", "class", "phrase", "cnr", "cnr_abs", "auroc", "top1", "miou", "mask_cnr", "other/Edema"]
        )
        for c in CLASSES:
            noise = rng.normal(0, 0.6, PHRASES)
            values = last[f"grounding/{c}/cnr"] + noise - noise.mean()
            for i, value in enumerate(values):
                scores = [f"{value:.6f}", f"{abs(value):.6f}", 0.8, int(value > 0.8), 0.3]
                others = [f"{1.1 * value:.6f}" if i % 2 else "", 0.1 if i < 3 else ""]
                writer.writerow([f"p{i:04d}", c, f"{c}, side left.", *scores, *others])
    excluded = "key,class,phrase,reason\np9,Edema,Edema.,box outside the image\np8,Edema,Edema.,box outside the image\n"
    (folder / "grounding" / "excluded.csv").write_text(excluded, encoding="utf-8")


def _controls(folder: Path) -> None:
    def grounding(cnr: float) -> dict[str, float]:
        means = {"cnr": cnr * 0.98, "macro_cnr": cnr, "macro_auroc": 0.5 + cnr / 5, "macro_top1": 0.08 + cnr / 5}
        return means | {f"{c}/cnr": cnr * (1.4 - 0.1 * i) for i, c in enumerate(CLASSES)}

    fid = {"real_vs_real": 3.1, "noise": 512.0, "autoencoder": 11.4, "untrained": 176.0}
    controls = {
        "grounding": {"prior": grounding(0.41), "shuffled_captions": grounding(0.12), "base": grounding(0.02)},
        "fidelity": {"n": 500, "fd_domain": fid, "kid_domain": {k: v / 900 for k, v in fid.items()}},
    }
    (folder / "controls.json").write_text(json.dumps(controls), encoding="utf-8")


def _attention(folder: Path, images: int, sharp: float, n: int, size: int, phrase: str | None) -> None:
    media, entries = folder / "media" / "attention", []
    for i in range(n):
        draw = np.random.default_rng(1000 + i)
        x, y, w, h = draw.uniform(0.2, 0.6), draw.uniform(0.3, 0.6), draw.uniform(0.15, 0.3), draw.uniform(0.15, 0.25)
        finding = blob(size, x + w / 2, y + h / 2, w / 2, h / 2)
        image = chest(size, draw) + 60 * finding
        attention = sharp * finding + (1 - sharp) * draw.uniform(0, 1, (8, 8)).repeat(size // 8, 0).repeat(size // 8, 1)
        c = i % len(CLASSES)
        png(media / f"x{i}.png", image)
        png(media / f"{images:09d}-{i}.png", heat(image, attention / attention.max()))
        png(media / f"m{i}.png", 255.0 * (finding > 0.4))
        entries.append(
            {
                "key": f"phantom-{i:05d}",
                "class": CLASSES[c],
                "phrase": phrase or f"Moderate left {WORDS[c]} without pneumothorax, heart size normal.",
                "word": WORDS[c],
                "image": f"x{i}.png",
                "map": f"{images:09d}-{i}.png",
                "boxes": [[round(v * size, 1) for v in (x, y, w, h)]],
                "size": [size, size],
                "mask": None if i % 4 == 3 else f"m{i}.png",
                "cnr": 1.4 * sharp + 0.05 * i - 0.2,
            }
        )
    media.mkdir(parents=True, exist_ok=True)
    (media / f"{images:09d}.json").write_text(json.dumps(entries), encoding="utf-8")


def _samples(folder: Path, images: int, done: float, n: int, size: int, seed: int) -> None:
    media, entries = folder / "media" / "samples", []
    for i in range(n):
        draw = np.random.default_rng(2000 + i)
        real = chest(size, draw)
        drawn = np.random.default_rng([seed, i]).normal(110, 60, (size, size)) * (1 - done) + real * done
        png(media / f"r{i}.png", real)
        png(media / f"{images:09d}-{i}.png", drawn)
        prompt = f"Heart size is normal. No pleural effusion. Sample {i}."
        entries.append(
            {
                "prompt": prompt,
                "image": f"{images:09d}-{i}.png",
                "real": None if i == 5 else f"r{i}.png",
                "key": f"phantom-1{i:04d}",
                "sampler": "dpm++",
            }
        )
    media.mkdir(parents=True, exist_ok=True)
    (media / f"{images:09d}.json").write_text(json.dumps(entries), encoding="utf-8")
