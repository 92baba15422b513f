"""What prototypes of a run do to held-out images, as one picture: drawn again from fresh noise, and edited by concepts.

    python tools/patronus_picture.py RUN --concepts AP Edema --out docs/img/patronus_xrays.png

Rows: the images; each drawn again from noise of its own under its own prototypes; and for each concept all prototypes moved by
three times what images with and without it differ in on average, there and back. A tool and no verb: it makes one picture.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from callbacks.prototypes import redrawn
from meddiff.attribution.strips import panels
from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.common.outside import terminal
from meddiff.evaluation.concept_scores import check_concept, flags_of
from meddiff.evaluation.prototype_inputs import patronus
from meddiff.evaluation.prototype_pictures import some_of
from meddiff.evaluation.shortcut_edits import ByPrototypes
from meddiff.runs.open_run import open_run
from meddiff.shards.members import png_bytes


def draw(
    run: Path, concepts: Sequence[str], split_name: str, images: int, scale: float, steps: int, seed: int
) -> bytes:
    """The sheet as PNG.

    Args:
        concepts: labels, confounders or views of the split.
        images: columns; the others of the split say what a concept changes.
        scale: how many times the difference of means.
        steps: of every drawing.

    Raises:
        UserError: no run of a model with prototypes, or a concept without images.
    """
    opened = open_run(run, None, None, "auto")
    model, split = patronus(opened.model), opened.data.dataset(split_name)
    shown = some_of(split, images, seed, "reconstructed")
    taught = [index for index in range(len(split)) if index not in set(shown)]
    for concept in concepts:
        check_concept(concept, flags_of(split, taught, concept), f"What is not shown of the split {split_name!r}")
    both = redrawn(model, split, images, steps, seed)  # (2 H, n W, 3)
    height, width = both.shape[0] // 2, both.shape[1] // len(shown)
    rows = [list(half.reshape(height, len(shown), width, 3).swapaxes(0, 1)) for half in np.split(both, 2)]
    titles = ["held-out images", "drawn again from fresh noise"]
    for concept in concepts:
        way = ByPrototypes(model, split, taught, (concept, concept), steps, None, scale, seed)
        edited = way.draw(shown)
        rows += [list(edited.down), list(edited.up)]
        titles += [f"less {concept}", f"more {concept}"]
    return png_bytes(panels(rows, titles, [""] * len(shown)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and draw; returns the exit code."""
    parser = argparse.ArgumentParser(description="What prototypes do to held-out images.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--concepts", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="fidelity")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--scale", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        given = (options.concepts, options.split, options.images, options.scale, options.steps, options.seed)
        picture = draw(options.run, *given)
    except UserError as error:
        print(f"error: {terminal(error)}", file=sys.stderr)
        return 2
    with atomic_open(options.out) as stream:
        stream.write(picture)
    print(terminal(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
