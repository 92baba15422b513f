"""What is asked of a generator before it is trusted does not depend on how many measure, nor on the size of their batches."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from meddiff.common.places import locate
from meddiff.evaluation.absent import Absent, AbsentOptions
from meddiff.evaluation.alignment import Alignment
from meddiff.evaluation.alignment_options import AlignmentOptions
from meddiff.evaluation.copies import Copies, CopiesOptions
from meddiff.evaluation.coverage import Coverage, CoverageOptions
from meddiff.evaluation.measurement import Measurement, Table
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.utility import Utility
from meddiff.evaluation.utility_options import UtilityOptions
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import QUICK, make_attentive_model
from tests.builders.thread_ranks import on_two_ranks
from tests.builders.tiny import make_shards

N, TRAIN = 8, 20
NETWORK = {"growth_rate": 4, "block_config": [1, 1], "num_init_features": 8}
COVERAGE = CoverageOptions(samples=N, sampling=QUICK, batch_size=6)
COPIES = CopiesOptions(samples=N, sampling=QUICK, batch_size=6)
ALIGNMENT = AlignmentOptions(sampling=QUICK, batch_size=6)
ABSENT = AbsentOptions(samples=4, timesteps=2, batch_size=16)
UTILITY = UtilityOptions(
    samples=6, seeds=1, steps=2, classifier_batch=4, side=32, checks=1, fewest=1, sampling=QUICK, network=NETWORK
)


class Splits(NamedTuple):
    """Of one cohort."""

    fidelity: LatentShardsDataset
    grounding: LatentShardsDataset
    train: LatentShardsDataset
    val: LatentShardsDataset


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    make_shards(folder, locate("assets/phantom_vae"), n=TRAIN + 2 * N + 10, val=4, grounding=6, fidelity=2 * N)
    return Splits(*(LatentShardsDataset(folder, name) for name in Splits._fields))


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(8, vae=str(locate("assets/phantom_vae")))


#: name -> the measurement, with a size of batches or without.
PARTS: dict[str, Callable[[Splits, int], Measurement]] = {
    "coverage": lambda s, b: Coverage(replace(COVERAGE, batch_size=b), s.train),
    "copies": lambda s, b: Copies(replace(COPIES, batch_size=b), s.train),
    "absent": lambda s, b: Absent(replace(ABSENT, batch_size=b), s.train),
    "alignment": lambda s, b: Alignment(replace(ALIGNMENT, batch_size=b)),
    "utility": lambda s, b: Utility(replace(UTILITY, batch_size=b), s.train, s.val),
}


@pytest.mark.parametrize("part", list(PARTS))
def test_two_ranks_find_what_one_does_in_batches_of_any_size(
    part: str, splits: Splits, model: LatentDiffusion, tmp_path: Path
) -> None:
    split = splits.grounding if part == "absent" else splits.fidelity
    alone = PARTS[part](splits, 16).run(model, split, None, Ranks())
    for found in on_two_ranks(PARTS[part](splits, 3), model, split):
        assert found.figures == pytest.approx(alone.figures, rel=2e-3, abs=2e-3, nan_ok=True)
        assert {name: len(table.rows) for name, table in found.tables.items()} == {
            name: len(table.rows) for name, table in alone.tables.items()
        }
        for name, table in alone.tables.items():
            assert of_samples(found.tables[name]) == of_samples(table), name


def of_samples(table: Table) -> list[tuple[object, ...]]:
    """Which rows there are, in their order."""
    return [tuple(value for value in row.values() if isinstance(value, str)) for row in table.rows]
