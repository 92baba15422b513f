"""The mechanism over the stages of a training: what is there, what stays when it is measured again, what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from meddiff.common.errors import UserError
from meddiff.evaluation.measurement import Result, Value
from meddiff.evaluation.mechanism import FIRST, Course, Mechanism, MechanismOptions, Stage, is_start
from meddiff.evaluation.ranks import Ranks
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.evaluations import EvaluationWriter
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import CountedPasses, make_attentive_model, rewrite_split
from tests.builders.tiny import make_shards

OPTIONS = MechanismOptions(samples=6, timesteps=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    return make_shards(
        tmp_path_factory.mktemp("mechanism") / "s", vae_folder, n=150, val=40, grounding=10, fidelity=0, normal=0.1
    )


def moved_model() -> LatentDiffusion:
    """The model after a training that moved every state of its tower."""
    found = make_attentive_model(8)
    found.freeze_text_encoder = False
    with torch.no_grad():
        found.text_encoder.ln_final.bias.add_(0.5)
    return found


def course(shards: Path) -> Course:
    base, last = make_attentive_model(8), moved_model()
    train, held_out = LatentShardsDataset(shards, "train"), LatentShardsDataset(shards, "val")
    return Course([Stage(0, 0, lambda: base), Stage(64, 8, lambda: last)], base.text_encoder, train, [held_out])


@pytest.fixture(scope="module")
def result(shards: Path) -> Result:
    return Mechanism(OPTIONS, course(shards)).run(
        moved_model(), LatentShardsDataset(shards, "grounding"), None, Ranks()
    )


def figures(result: Result, images: int) -> dict[str, Value]:
    return {str(row["figure"]): row["value"] for row in result.tables["mechanism"].rows if row["images"] == images}


def test_every_stage_has_every_table(result: Result) -> None:
    assert list(result.tables) == list(FIRST)
    for name, table in result.tables.items():
        assert {(row["images"], row["step"]) for row in table.rows} == {(0, 0), (64, 8)}, name
    assert figures(result, 0).keys() >= {"attention/end", "cnr/finding/finding", "moved/finding", "probe/named/finding"}
    assert {row["control"] for row in result.tables["mechanism_probe"].rows} == {"", "shuffled", "untrained"}


def test_figures_are_those_of_the_last_stage(result: Result) -> None:
    last = figures(result, 64)
    assert result.figures.keys() == last.keys()
    assert result.figures["moved/end"] == last["moved/end"]
    assert float(figures(result, 0)["moved/end"] or 0) == pytest.approx(0.0, abs=1e-6)
    assert result.figures["moved/end"] > 0.1


def test_a_pass_that_is_done_is_not_done_again(shards: Path, tmp_path: Path, result: Result) -> None:
    """Also when a checkpoint is added: only that one is measured."""
    split, whole = LatentShardsDataset(shards, "grounding"), course(shards)
    first = Course(whole.stages[1:], whole.base, whole.train, whole.held_out)
    Mechanism(OPTIONS, first).run(moved_model(), split, tmp_path, Ranks())
    model = whole.stages[1].open()
    with CountedPasses(model) as counted:
        found = Mechanism(OPTIONS, whole).run(moved_model(), split, tmp_path, Ranks())
        assert counted.samples == 0
    for name, table in result.tables.items():
        assert len(found.tables[name].rows) == len(table.rows)
        for one, other in zip(found.tables[name].rows, table.rows, strict=True):
            assert rounded(one) == rounded(other), name


def rounded(row: Mapping[str, Value]) -> dict[str, object]:
    return {k: pytest.approx(v, rel=1e-4, abs=1e-4) if isinstance(v, float) else v for k, v in row.items()}


def test_other_settings_are_not_mixed_up(shards: Path, tmp_path: Path) -> None:
    split, whole = LatentShardsDataset(shards, "grounding"), course(shards)
    small = MechanismOptions(samples=2, timesteps=1)
    Mechanism(small, whole).run(moved_model(), split, tmp_path, Ranks())
    with pytest.raises(UserError, match="results of other settings \\(timesteps\\)"):
        Mechanism(MechanismOptions(samples=2, timesteps=2), whole).run(moved_model(), split, tmp_path, Ranks())


def test_a_frozen_tower_that_is_not_its_sources_did_not_start_there() -> None:
    """Else "moved" would tell the difference between two releases of the base model."""
    base, frozen = make_attentive_model(8), moved_model()
    assert is_start(base, frozen)
    frozen.freeze_text_encoder = True
    assert not is_start(base, frozen)
    assert is_start(base, make_attentive_model(8))


def test_without_labels_of_words_everything_but_the_probe_is_measured(shards: Path, tmp_path: Path) -> None:
    def unlabelled(name: str, payload: bytes) -> bytes:
        return json.dumps({**json.loads(payload), "attributes": {}}).encode() if name.endswith(".json") else payload

    rewrite_split(LatentShardsDataset(shards, "grounding"), tmp_path / "s", unlabelled)
    split = LatentShardsDataset(tmp_path / "s", "grounding")
    whole = course(shards)
    measured = Mechanism(OPTIONS, Course(whole.stages, whole.base, split, [split]))
    assert "captions whose words are labelled" in str(measured.without_probe())
    found = measured.run(moved_model(), split, None, Ranks())
    assert not found.tables["mechanism_probe"].rows
    assert found.figures["moved/finding"] > 0.1
    assert found.figures.keys() >= {"attention/end", "cnr/finding/finding"}
    assert not any(name.startswith("probe") for name in found.figures)


def test_without_what_it_started_from_the_rest_is_measured(shards: Path) -> None:
    whole = course(shards)
    found = Mechanism(OPTIONS, Course(whole.stages[1:], None)).run(
        moved_model(), LatentShardsDataset(shards, "grounding"), None, Ranks()
    )
    assert {name.partition("/")[0] for name in found.figures} == {"attention", "cnr"}


def test_ranks_share_the_stages(shards: Path) -> None:
    """Two ranks make each stage once between them."""
    split, whole = LatentShardsDataset(shards, "grounding"), course(shards)
    assert [stage.images for rank in range(2) for stage in Ranks(rank, 2).share(whole.stages)] == [0, 64]
    assert Mechanism(OPTIONS, whole).cost(moved_model(), split) == 2 * 6 * 2


def test_the_tables_are_written_with_undefined_cells_empty(result: Result, tmp_path: Path) -> None:
    writer = EvaluationWriter(tmp_path, {"model": "small", "images": 64, "seed": 3})
    for name, table in result.tables.items():
        writer.table(name, table.rows, table.first, table.only)
    lines = (tmp_path / "mechanism.csv").read_text().splitlines()
    assert lines[0] == "model,seed,images,step,figure,value,low,high,n"
    assert lines[1].startswith("small,3,0,0,attention/")
    assert "nan" not in "".join((tmp_path / f"{name}.csv").read_text() for name in FIRST)
