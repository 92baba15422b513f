"""Does a map move with its finding because the word knows the side? Twins whose phrases say it before the word, or after.

``python benchmarks/side_at_the_word.py RUN [RUN ...]``. A causal text tower has read at a word what stands before it: in
"large right pleural effusion" the word knows its side, in "effusion on the right" it does not. A row a run: the share of
mirrored pairs in which the map of the word moves with the finding (chance 50 %), over phrases of either kind.
Source: own.
"""

import argparse
import re
from pathlib import Path

from meddiff.attribution.grounding_pass import paper_timesteps
from meddiff.attribution.words import QUERY_WORDS
from meddiff.evaluation.mirrored_twins import score_twins, twin_maps
from meddiff.evaluation.samples import GroundingSample
from meddiff.preparation.control_cohorts import mirrored_cohort
from meddiff.runs.open_run import open_run
from meddiff.shards.dataset import LatentShardsDataset

SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def before(sample: GroundingSample) -> bool | None:
    """Whether the phrase says the side before the last word that names the finding; None where it says none."""
    phrase = sample.phrase.lower()
    side = SIDES.search(phrase)
    word = max((phrase.rfind(one) for one in QUERY_WORDS[sample.label]), default=-1)
    return None if side is None else side.start() < word


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--timesteps", type=int, default=10)
    arguments = parser.parse_args()
    print("| run | side before the word: moves | pairs | after it | pairs | CNR here, at the twin's: before | after |")
    print("|---|---|---|---|---|---|---|")
    for path in arguments.runs:
        run = open_run(path)
        data = run.data
        split = LatentShardsDataset(mirrored_cohort(data.phantom, data.vae, 160), "grounding")
        samples, maps = twin_maps(run.model, split, paper_timesteps(arguments.timesteps))
        cells = []
        places = []
        for early in (True, False):
            twins = [(samples[i], samples[i ^ 1]) for i in range(len(samples))]
            mine = [i for i, pair in enumerate(twins) if {before(one) for one in pair} == {early}]
            found = score_twins([samples[i] for i in mine], [maps[i] for i in mine])
            cells += [f"{100 * found.moved:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]", f"{found.pairs}"]
            places.append(f"{found.own['cnr']:.2f}, {found.twin['cnr']:.2f}")
        print(f"| {path.name} | " + " | ".join(cells + places) + " |", flush=True)


if __name__ == "__main__":
    main()
