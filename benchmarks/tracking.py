"""What one evaluation costs to log to W&B, offline: figures, word maps with boxes and masks, samples, phrases, the chart.

``python -m benchmarks.tracking [--side 128] [--phrases 158]``: seconds of processor time of this process (W&B's own writes
beside it), the median of five evaluations after the first.
"""

import argparse
import tempfile
import time

import numpy as np
from PIL import Image

from callbacks.media import Media, Picture
from callbacks.tracking import RunWandbLogger
from callbacks.wandb_rows import log_to_wandb
from callbacks.wandb_trouble import finish_wandb


def media(side: int, pictures: int, samples: int, phrases: int) -> Media:
    """Smooth pictures, as X-rays are: noise would take a PNG far longer."""
    draw = np.random.default_rng(0)
    small = Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    picture = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    box = [side / 4, side / 4, side / 4, side / 4]
    maps = [Picture(picture, "edema: moderate edema", "Edema", [box], mask) for _ in range(pictures)]
    rows: list[tuple[object, ...]] = [("Edema", f"phrase {i}", 0.5, 0.7, True) for i in range(phrases)]
    return Media(
        {"grounding/attention": maps, "fidelity/samples": [Picture(picture, "a caption")] * samples},
        {"grounding/phrases": (("class", "phrase", "CNR", "AUROC", "hit"), rows)},
    )


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--phrases", type=int, default=158)
    given = parser.parse_args()
    figures = {f"grounding/class {i}/cnr": 0.1 * i for i in range(40)}
    shown, spent = media(given.side, given.pictures, given.samples, given.phrases), []
    with tempfile.TemporaryDirectory() as folder:
        logger = RunWandbLogger(folder, "cost")
        evaluations: list[tuple[int, dict[str, float]]] = []
        for i in range(6):
            evaluations.append((i, {"grounding/cnr": 0.1 * i, "fidelity/fd_domain": 9.0 - i}))
            begun = time.process_time()
            log_to_wandb(logger, {**figures, **evaluations[-1][1], "images": float(i)}, [shown], evaluations, i)
            spent.append(time.process_time() - begun)
        finish_wandb()
    print(f"{np.median(spent[1:]):.2f} s an evaluation, {spent[0]:.2f} s the first (begins the run)")


if __name__ == "__main__":
    main()
