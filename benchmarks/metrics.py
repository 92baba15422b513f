"""Milliseconds per sample of all grounding scores, beside plain scikit-learn and the floor, in the same run.

    python benchmarks/metrics.py [--samples 32] [--grid 64] [--size 512]

One thread. "ours" is `meddiff.metrics.functional.score_grid_maps`: the columns of an evaluation (CNR in its variants, pixel
AUROC, Top-1, IoU over two mixture thresholds, BioViL's mIoU, distance) from maps on the latents' grid. "plain" is how
the published code gets its scores (spec/tradeoff.md, section 6), written with scikit-learn: one sample at a time, one
`roc_auc_score`, one `GaussianMixture`, four times `jaccard_score`, and the CNR in torch; it makes fewer columns. The
floor is what has to be touched at all: every pixel of map and mask read once, at the speed at which this machine sums
float32 numbers. Times are processor time of the one thread, so that other work on the machine counts only where it
takes the cache away.

Target: at most 10 ms per sample of 512 x 512 on one core (the published code: about 450 ms).
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.metrics import jaccard_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.nn import functional as F

from meddiff.common.draws import generator
from meddiff.metrics import functional
from meddiff.metrics.functional import box_masks, score_grid_maps

TARGET_MS = 10.0


def samples(n: int, grid: int, size: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Maps like averaged attention (smooth noise and a blob, values near 1 / 77) with one to three boxes."""
    random = generator(0, "benchmark of metrics")
    y, x = np.mgrid[:grid, :grid] / grid
    maps = torch.from_numpy(random.gamma(2.0, size=(n, grid, grid)))
    for width in (3, 5, 9):
        maps = F.avg_pool2d(maps, width, 1, width // 2)
    boxes = []
    for image in maps:
        u, v = random.uniform(0.2, 0.8, 2)
        blob = random.uniform(0.05, 0.4) * np.exp(-((x - u) ** 2 + (y - v) ** 2) / random.uniform(0.005, 0.03))
        image += torch.from_numpy(blob)
        count = int(random.choice([1, 1, 1, 2, 3]))
        corners, extent = random.uniform(0.05, 0.6, (2, count)), random.uniform(0.1, 0.35, (2, count))
        boxes.append(torch.from_numpy(np.stack([*corners, *extent], axis=1) * size))
    masks = torch.stack([box_masks(table, (size, size)).any(dim=0) for table in boxes])
    return (maps / 100).float(), masks, boxes


def plain(heat: Tensor, masks: Tensor) -> list[dict[str, float]]:
    """The scores of the published code with scikit-learn, sample by sample."""
    rows = []
    for image, mask in zip(heat, masks, strict=True):
        scaled = (image - image.min()) / (image.max() - image.min())
        full = F.interpolate(scaled[None, None], size=mask.shape, mode="bilinear")[0, 0]
        inside, outside = full[mask], full[~mask]
        cnr = (inside.mean() - outside.mean()) / (inside.var() + outside.var()).sqrt()
        truth = mask.flatten().numpy()
        row = {"cnr": float(cnr), "auroc": float(roc_auc_score(truth, full.flatten().numpy()))}
        row["top1"] = float(truth[int(full.argmax())])
        values = image.double().reshape(-1, 1).numpy()
        binary = (image > GaussianMixture(2, random_state=0).fit(values).means_.mean()).float()
        smooth = binary.clone()
        smooth[1:-1, 1:-1] = (F.avg_pool2d(binary[None, None], 3, 1)[0, 0] >= 0.5).float()
        pred = F.interpolate(smooth[None, None], size=mask.shape, mode="bilinear")[0, 0].round().flatten().numpy() > 0
        row["iou_paper"] = float(jaccard_score(truth, pred))
        row["miou_paper"] = (row["iou_paper"] + float(jaccard_score(~truth, ~pred))) / 2
        tight = np.zeros_like(mask.numpy())  # the published code scores the box around the foreground, too
        places = np.argwhere(pred.reshape(mask.shape))
        if len(places):
            (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0)
            tight[top:bottom, left:right] = True
        row["bbox_iou"] = float(jaccard_score(truth, tight.flatten()))
        row["bbox_miou"] = (row["bbox_iou"] + float(jaccard_score(~truth, ~tight.flatten()))) / 2
        rows.append(row)
    return rows


def milliseconds(work: Callable[[], object], n: int, repeats: int) -> float:
    """Processor time per sample of the quickest of some runs, after one to warm up."""
    work()
    spent = []
    for _ in range(repeats):
        begun = time.thread_time()
        work()
        spent.append(time.thread_time() - begun)
    return 1000 * min(spent) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--grid", type=int, default=64)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="sklearn")
    n = options.samples
    heat, masks, boxes = samples(n, options.grid, options.size)
    few = min(n, 8)

    full = functional.resize_maps(heat[:few], (options.size, options.size))
    some = masks[:few]
    cuts = functional.mixture_threshold(heat[:few])
    pred = functional.foreground(full, cuts)
    one = [slice(i, i + 1) for i in range(few)]
    each: dict[str, Callable[[slice], object]] = {
        "resize": lambda i: functional.resize_maps(heat[i], (options.size, options.size)),
        "moments for CNR": lambda i: functional.region_moments(full[i], some[i]),
        "AUROC": lambda i: functional.pixel_auroc(full[i], some[i]),
        "Top-1": lambda i: functional.pointing_game(full[i], some[i]),
        "mixture": lambda i: functional.mixture_threshold(heat[i]),
        "IoU": lambda i: functional.mixture_iou(full[i], some[i], cuts[i]),
        "IoU as the paper": lambda i: functional.paper_iou(heat[i], some[i], cuts[i]),
        "BioViL's mIoU": lambda i: functional.multi_threshold_iou(full[i], some[i]),
        "CNR by box": lambda i: functional.box_contrast_to_noise_ratio(full[i], boxes[i]),
        "distance": lambda i: functional.centre_distance(pred[i], boxes[i]),
    }
    ours = milliseconds(lambda: score_grid_maps(heat, masks, boxes), n, 5)
    reference = milliseconds(lambda: plain(heat[:few], masks[:few]), few, 1)
    touched = options.size**2 * 5  # float32 map, bool mask
    stream = torch.ones(options.size**2 * 5 // 4)
    floor = milliseconds(lambda: stream.sum(), 1, 50)

    found, expected = score_grid_maps(heat[:few], masks[:few], boxes[:few]), plain(heat[:few], masks[:few])
    shared = [name for name in found if name in expected[0]]
    apart = {name: max(abs(row[name] - float(found[name][i])) for i, row in enumerate(expected)) for name in shared}

    shape = f"{options.size} x {options.size} from {options.grid} x {options.grid}"
    print(f"{n} samples of {shape}; load {os.getloadavg()[0]:.1f}")
    for name, part in each.items():
        print(f"  {name:<20}{milliseconds(partial(run, part, one), few, 5):8.2f} ms")
    print(f"{'ours':<22}{ours:8.2f} ms a sample; target {TARGET_MS:.0f} ms {'met' if ours <= TARGET_MS else 'MISSED'}")
    print(f"{'plain scikit-learn':<22}{reference:8.2f} ms a sample; {reference / ours:.0f} times ours")
    print(
        f"{'floor':<22}{floor:8.2f} ms a sample; {touched / 2**20:.2f} MiB touched, ours takes {ours / floor:.0f} times as long"
    )
    print("largest difference: " + ", ".join(f"{name} {value:.1e}" for name, value in apart.items()))
    print(json.dumps({"ours_ms": round(ours, 2), "plain_ms": round(reference, 1), "floor_ms": round(floor, 3)}))


def run(part: Callable[[slice], object], places: list[slice]) -> None:
    for place in places:
        part(place)


if __name__ == "__main__":
    main()
