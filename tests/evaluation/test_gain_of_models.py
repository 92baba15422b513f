"""The grounding gain of a model: what is asked, where else its maps are scored, and that nothing else changes by it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from meddiff.attribution.grounding_pass import paper_timesteps
from meddiff.attribution.words import QUERY_WORDS
from meddiff.evaluation.controls import Controls, ControlsOptions, Others
from meddiff.evaluation.gain import Gains, absent_findings, other_places, score_elsewhere
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.measurement import Result
from meddiff.evaluation.own_first import cross_table, naming_samples
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import GroundingSample, balanced, grounding_samples
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import CountedPasses, make_attentive_model
from tests.builders.tiny import make_shards

ALONE = Ranks()
OPTIONS = GroundingOptions(timesteps=2)
NAMES = {"gain", "gain_absent", "gain_other_patient", "gain_mirrored_box"}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    return LatentShardsDataset(make_shards(folder, vae_folder, n=40, val=2, grounding=24, fidelity=2), "grounding")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    folder = tmp_path_factory.mktemp("crowded") / "phantom"
    several = {"n": 12, "grounding": 12, "seed": 4, "multiple": 1.0, "val": 0, "fidelity": 0, "normal": 0.0}
    return LatentShardsDataset(make_shards(folder, vae_folder, **several), "grounding")


@pytest.fixture(scope="module")
def samples(split: LatentShardsDataset) -> list[GroundingSample]:
    return grounding_samples(split, list(QUERY_WORDS))[0]


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    return make_attentive_model(8, vae=str(vae_folder))


@pytest.fixture(scope="module")
def result(split: LatentShardsDataset, model: LatentDiffusion) -> Result:
    return Grounding(OPTIONS, gain=6).run(model, split, None, ALONE)


def test_no_other_figure_or_row_changes_by_a_bit(
    result: Result, split: LatentShardsDataset, model: LatentDiffusion
) -> None:
    plain = Grounding(OPTIONS).run(model, split, None, ALONE)
    assert not {name for name in plain.figures if name.startswith("gain")}
    more = set(result.figures) - set(plain.figures)
    assert {*NAMES, "gain_low", "gain_high"} >= more >= NAMES
    assert {name: result.figures[name] for name in plain.figures} == plain.figures
    assert list(result.tables["grounding"].rows) == list(plain.tables["grounding"].rows)
    assert set(result.tables) - set(plain.tables) == {"gain", "gain_askings"}


def test_it_costs_what_it_says_and_asks_so_many_phrases(
    split: LatentShardsDataset, model: LatentDiffusion, samples: list[GroundingSample]
) -> None:
    for limit in (0, 6, 1000):
        measurement = Grounding(OPTIONS, gain=limit)
        with CountedPasses(model) as counted:
            found = measurement.run(model, split, None, ALONE)
        assert counted.samples == measurement.cost(model, split)
        asked = min(limit, len(samples))
        assert counted.samples == (len(samples) + asked) * OPTIONS.timesteps
        rows = found.tables["gain_askings"].rows if limit else ()
        assert sum(row["control"] == "absent" for row in rows) == asked


def test_the_other_patients_box_is_dealt_out_in_pairs(
    split: LatentShardsDataset, samples: list[GroundingSample]
) -> None:
    places = other_places(split, samples)
    of = {(one.index, one.label): one for one in samples}
    paired = 0
    for sample, elsewhere in zip(samples, places, strict=True):
        mirrored, own = elsewhere["mirrored_box"]
        assert own == sample.index
        assert np.array_equal(mirrored[:, ::-1], sample.box_mask())
        if "other_patient" not in elsewhere:
            continue
        paired += 1
        mask, index = elsewhere["other_patient"]
        other = of[index, sample.label]
        assert np.array_equal(mask, other.box_mask())
        assert split.metadata(index)["patient_id"] != split.metadata(sample.index)["patient_id"]
        back = places[samples.index(other)]["other_patient"]
        assert back[1] == sample.index
    left = {one.label for one, elsewhere in zip(samples, places, strict=True) if "other_patient" not in elsewhere}
    odd = {label for label in QUERY_WORDS if sum(one.label == label for one in samples) % 2}
    assert left == odd
    assert paired > len(samples) / 2


def test_the_box_of_the_same_patient_is_no_other_patients(samples: list[GroundingSample]) -> None:
    class OnePatient:
        def metadata(self, sample: int) -> dict[str, object]:
            return {"patient_id": "p1", "labels": []}

    assert all(set(places) == {"mirrored_box"} for places in other_places(OnePatient(), samples))


def test_an_absent_finding_is_absent_and_a_subset_is_asked_the_same(
    split: LatentShardsDataset, samples: list[GroundingSample]
) -> None:
    pairs = absent_findings(split, samples)
    assert len(pairs) == len(samples)
    for sample, other in pairs:
        assert other.label not in split.metadata(sample.index)["labels"]
    some = absent_findings(split, samples, balanced(samples, 8))
    assert len(some) == 8
    asked = {id(sample): other.phrase for sample, other in pairs}
    assert all(asked[id(sample)] == other.phrase for sample, other in some)
    assert len({sample.label for sample, _ in some}) >= 6, "balanced over classes"


def test_a_map_is_scored_on_its_own_box_and_elsewhere_against_what_is_in_neither(
    samples: list[GroundingSample], split: LatentShardsDataset
) -> None:
    places = other_places(split, samples)
    at = next(i for i, one in enumerate(places) if "other_patient" in one and samples[i].label == "Pleural Effusion")
    heat = torch.from_numpy(samples[at].box_mask()).double() + torch.rand(
        samples[at].size, generator=torch.Generator().manual_seed(0)
    )
    found = score_elsewhere(samples[at], heat, places[at])
    gains = Gains()
    gains.add_elsewhere(samples[at], heat, places[at])
    assert {row["control"]: (row["cnr"], row["control_cnr"]) for row in gains.askings} == found
    asked, under = found["mirrored_box"]
    assert asked > 2
    assert abs(under) < 0.3


def test_pairs_of_findings_are_asked_both_ways_so_that_what_ignores_the_word_gains_nothing(
    crowded: LatentShardsDataset, model: LatentDiffusion
) -> None:
    named, _ = naming_samples(model, crowded)
    gains = Gains()
    plain = cross_table(model, crowded, named, paper_timesteps(1))
    assert cross_table(model, crowded, named, paper_timesteps(1), gains=gains) == plain
    keys = [row["key"] for row in gains.askings]
    assert len(keys) >= 12
    assert all(keys.count(key) % 2 == 0 for key in keys)
    assert {row["control"] for row in gains.askings} == {"other_finding"}


def test_controls_say_it_first_with_every_row_behind_it(split: LatentShardsDataset, model: LatentDiffusion) -> None:
    found = Controls(ControlsOptions(timesteps=2), Others()).run(model, split, None, ALONE)
    rows = {row["control"]: row for row in found.tables["gain"].rows}
    assert list(rows) == ["least", "absent", "other_patient", "mirrored_box"]
    assert next(iter(found.figures)) == "gain"
    assert next(iter(found.tables)) == "gain"
    assert next(iter(found.controls)) == "gain"
    table = {row["control"]: row for row in found.tables["controls"].rows}
    assert rows["absent"]["control_cnr"] == pytest.approx(table["absent_finding"]["cnr"], rel=1e-6)
    assert rows["absent"]["cnr"] == pytest.approx(table["trained"]["cnr"], rel=1e-6)
    askings = [row for row in found.tables["gain_askings"].rows if row["control"] == "absent"]
    differences = [float(row["cnr"]) - float(row["control_cnr"]) for row in askings]
    assert found.figures["gain_absent"] == pytest.approx(np.mean(differences), rel=1e-9)
    assert abs(found.figures["gain"]) <= min(abs(found.figures[f"gain_{name}"]) for name in list(rows)[1:])
    saved = found.controls["gain"]
    assert isinstance(saved, dict)
    assert saved["absent"]["gain"] == found.figures["gain_absent"]
