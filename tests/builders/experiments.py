"""Finished runs of an experiment whose truth is known: what seeds, images and the text encoder bring is planted."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from meddiff.common.findings import FINDINGS
from meddiff.launch.record import folder_of
from meddiff.runs import names
from meddiff.runs.tables import write_table

#: Images with each finding.
EACH = 6
#: (images trained on) of the evaluations, as shares of the whole.
STOPS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Truth:
    """What a run comes to.

    Attributes:
        cnr: mean over phrases at the end.
        distance: Frechet distance at the end, from 40 at the start.
        eos: the end token's CNR.
        path: share of training -> (share of the way in distance, share of the CNR).
        first: share of pairs in which the own finding comes first.
    """

    cnr: float = 1.2
    distance: float = 15.0
    eos: float = 0.5
    path: Callable[[float], tuple[float, float]] = lambda share: (share, share)
    first: float = 0.65


def make_sweep(
    folder: Path,
    frozen: Truth,
    learnable: Truth,
    seeds: Sequence[int] = range(5),
    scatter: float = 0.05,
    **settings: object,
) -> Path:
    """``FOLDER``: a sweep with a frozen and a learnable run of each seed.

    Args:
        scatter: standard deviation of a seed's CNR; of its distance ten times that.
        settings: of every run: base, gamma, prompt, confounders, images, timesteps, start, rate.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names.SWEEP).touch()
    number = 0
    for encoder, truth in (("frozen", frozen), ("learnable", learnable)):
        for seed in seeds:
            number += 1
            draw = np.random.default_rng([seed, encoder == "frozen", 11])
            some = Truth(
                truth.cnr + draw.normal(0, scatter), truth.distance + draw.normal(0, 10 * scatter),
                truth.eos + draw.normal(0, scatter), truth.path, truth.first + draw.normal(0, 0.01),
            )  # fmt: skip
            name = folder_of(number, {"encoder": encoder, "seed": seed, **settings})
            make_run(folder / name, some, seed, encoder == "frozen", **settings)
    return folder


def make_run(
    run: Path,
    truth: Truth,
    seed: int,
    frozen: bool,
    base: str = "assets/phantom_base",
    gamma: float | None = 5.0,
    prompt: str = "impression",
    confounders: float = 0.7,
    images: int = 32000,
    timesteps: int = 8,
    start: float = 40.0,
    rate: float | None = None,
    controls: bool = True,
) -> Path:
    """One finished run folder in the real file formats."""
    run.mkdir(parents=True)
    model: dict[str, object] = {
        "unet": base,
        "text_encoder": base,
        "freeze_text_encoder": frozen,
        "min_snr_gamma": gamma,
        "learning_rate": 2e-3,
    }
    phantom = {
        "n": 2000,
        "seed": 0,
        "confounders": [f"tube:pneumothorax:{confounders}", f"pacemaker:cardiomegaly:{confounders}"],
    }
    model["text_encoder_learning_rate"] = rate
    config = {
        "name": "phantom_tradeoff",
        "seed_everything": seed,
        "model": {"class_path": "lightning_modules.LatentDiffusionModule", "init_args": model},
        "data": {"class_path": "datamodules.PhantomLatentsDataModule", "init_args": {"phantom": phantom, "prompt": prompt}},
        "grounding": {"timesteps": timesteps, "split": "grounding"},
        "fidelity": {"samples": 100},
    }  # fmt: skip
    (run / names.CONFIG).write_text(yaml.safe_dump(config))
    rows = []
    for share in STOPS:
        along, pointing = truth.path(share)
        rows.append(
            {
                "step": round(images * share / 16),
                "images": round(images * share),
                "fidelity/fd_domain": start + along * (truth.distance - start),
                "grounding/macro_cnr": pointing * truth.cnr,
            }
        )
    write_table(run / names.TRADEOFF, rows)
    (run / names.FINISHED).write_text(json.dumps({"images": images, "step": images // 16}))
    hard = np.random.default_rng(99).normal(0, 0.6, len(FINDINGS) * EACH)  # images are as hard for every run
    own = np.random.default_rng([seed, frozen, 5]).normal(0, 0.3, len(hard))
    values = truth.path(1.0)[1] * truth.cnr + hard - hard.mean() + own - own.mean()
    phrases = [
        {
            "key": f"phantom-{i:06d}", "class": FINDINGS[i % len(FINDINGS)], "phrase": "A finding.", "cnr": float(value),
            "auroc": float(1 / (1 + np.exp(-value))), "top1": int(value > 1), "eos_cnr": truth.eos + float(hard[i]),
        }
        for i, value in enumerate(values)
    ]  # fmt: skip
    write_table(run / names.GROUNDING / f"{names.by_images(images)}.csv", phrases)
    if controls:
        evaluation = run / names.EVALUATIONS / names.by_images(images)
        write_table(evaluation / "controls.csv", [{"control": "absent_finding", "macro_cnr": 0.5}])
        (evaluation / names.ABOUT).write_text(json.dumps({"images": images, "parts": {"controls": {}}}))
        figures = {"macro_cnr": truth.cnr, "pairs/first": truth.first, "pairs/moved": 0.7, "gain": truth.cnr / 2}
        (evaluation / names.SUMMARY).write_text(json.dumps({"controls": figures}))
    return run
