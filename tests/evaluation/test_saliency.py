"""Grounding by timestep: a planted curve is found, what looks everywhere at the abnormal is exposed, work is kept."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.measurement import Row
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.saliency import Saliency
from meddiff.evaluation.saliency_answers import best_rows, headline, when_rows
from meddiff.evaluation.saliency_media import sheets_of, write_pictures
from meddiff.evaluation.saliency_scores import Entry, curve_rows, gather_points, score_curves
from meddiff.evaluation.saliency_tools import Channel
from meddiff.evaluation.saliency_units import Beside, SaliencyOptions
from meddiff.evaluation.samples import GroundingSample
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import CountedPasses, make_attentive_model
from tests.builders.tiny import make_shards

TIMES = [701, 401, 101]
SMALL = SaliencyOptions(tools=["attention", "concept"], samples=4, timesteps=2, shown=1)


# ---- planted maps ---------------------------------------------------------------------------------------------------


def planted(kind: str) -> list[Entry]:
    """Twelve images with a box each, asked at three timesteps.

    Args:
        kind: "word": maps are hot in the box at timestep 401 alone, if the present finding is asked for; "abnormal": at all
            timesteps, whatever is asked for.
    """
    entries: list[Entry] = []
    for index in range(12):
        noise = torch.from_numpy(np.random.default_rng(index).normal(size=(2, 3, 32, 32))).float()
        box = np.array([[4.0 + index, 6.0, 8.0, 9.0]])
        sample = GroundingSample(index, f"i{index}", ("Edema", "Pneumonia")[index % 2], "it is there", box, (32, 32))
        inside = torch.from_numpy(sample.box_mask())
        maps, absent = noise
        hot = [1] if kind == "word" else [0, 1, 2]
        maps[hot] += 4.0 * inside
        if kind == "abnormal":
            absent[hot] += 4.0 * inside
        places = {"mirrored_box": sample.box_mask()[:, ::-1].copy()}
        curves = score_curves(sample, {Channel(kind): maps}, {Channel(kind): absent}, places)
        entries.append(
            {"address": f"{kind}{index}", "made": "", "source": kind, "index": index, "key": sample.key}
            | {"label": sample.label, "timesteps": TIMES, "partners": {}, "curves": curves, "shares": {}}  # type: ignore[arg-type]
        )
    return entries


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return curve_rows(gather_points([*planted("word"), *planted("abnormal")]))


def value(rows: list[Row], tool: str, figure: str, timestep: int, label: str = "all") -> float:
    found = [
        row["value"]
        for row in rows
        if (row["tool"], row["layer"], row["figure"], row.get("timestep"), row["class"])
        == (tool, "all", figure, timestep, label)
    ]
    assert len(found) == 1
    return float(found[0] or 0.0)


def test_a_planted_timestep_is_found(rows: list[Row]) -> None:
    for label in ("all", "Edema", "Pneumonia"):
        assert value(rows, "word", "cnr", 401, label) > 2 > 0.5 > abs(value(rows, "word", "cnr", 101, label))
    when = {(row["tool"], row["figure"], row["class"]): row for row in when_rows(rows)}
    found = when["word", "gain/absent", "all"]
    assert (found["best_timestep"], found["known_from"], found["known_to"]) == (401, 401, 401)
    assert headline(rows)["word/gain_absent_timestep"] == 401


def test_a_map_that_looks_at_whatever_is_abnormal_gains_nothing(rows: list[Row]) -> None:
    """The cheapest cheat: its CNR is as high as can be, at every timestep."""
    for timestep in TIMES:
        assert value(rows, "abnormal", "cnr", timestep) > 2
        assert abs(value(rows, "abnormal", "gain/absent", timestep)) < 0.5
        assert value(rows, "abnormal", "cnr/absent", timestep) > 2
    when = {(row["tool"], row["figure"], row["class"]): row for row in when_rows(rows)}
    assert when["abnormal", "gain/absent", "all"]["known_from"] is None
    assert when["abnormal", "cnr", "all"]["known_from"] == 701  # which is why it is not read


def test_the_best_tool_is_named_with_what_it_is_ahead_by() -> None:
    best = best_rows(gather_points([*planted("word"), *planted("abnormal")]))
    found = {(row["timestep"], row["figure"]): row for row in best}
    assert found[101, "cnr"]["tool"] == "abnormal"
    assert float(found[101, "cnr"]["low"] or 0) > 1
    assert found[401, "gain/absent"]["tool"] == "word"
    assert float(found[401, "gain/absent"]["low"] or 0) > 1
    assert found[401, "cnr"]["n"] == 12
    even = found[401, "cnr"]  # both are hot there, in the same noise: not told apart
    assert even["difference"] == pytest.approx(0.0)
    assert even["low"] is None


# ---- the measurement ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    folder = tmp_path_factory.mktemp("saliency") / "s"
    return LatentShardsDataset(make_shards(folder, vae_folder, n=30, val=2, grounding=12, fidelity=0), "grounding")


@pytest.fixture(scope="module")
def model() -> Iterator[LatentDiffusion]:
    found = make_attentive_model(8)
    before = {name: weight.clone() for name, weight in found.state_dict().items()}
    yield found
    assert all(torch.equal(weight, before[name]) for name, weight in found.state_dict().items())


def test_of_one_timestep_it_is_the_grounding_pass(split: LatentShardsDataset, model: LatentDiffusion) -> None:
    once = SaliencyOptions(tools=["attention"], samples=4, timesteps=1, shown=0)
    found = Saliency(once).run(model, split, None, Ranks())
    usual = Grounding(GroundingOptions(samples=4, timesteps=1)).run(model, split, None, Ranks())
    rows = list(found.tables["saliency"].rows)
    for figure in ("cnr", "auroc", "top1"):
        assert value(rows, "attention", figure, 381) == pytest.approx(usual.figures[figure], abs=1e-4)


def test_what_is_stated_is_what_is_computed_and_nothing_is_done_twice(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    beside = Beside(untrained=make_attentive_model(8, seed=1))
    with CountedPasses(model) as counted:
        first = Saliency(SMALL, beside).run(model, split, tmp_path, Ranks())
    controls = sum(unit.cost for unit in Saliency(SMALL, beside).units(split) if unit.source == "untrained")
    assert counted.samples + controls == Saliency(SMALL, beside).cost(model, split)
    with CountedPasses(model) as counted:
        again = Saliency(SMALL, beside).run(model, split, tmp_path, Ranks())
    assert counted.samples == 0
    assert again.tables["saliency"].rows == first.tables["saliency"].rows
    tools = {row["tool"] for row in first.tables["saliency"].rows}
    assert tools == {"attention", "end_token", "concept", "untrained", "prior"}


def test_without_time_the_rest_is_left_for_a_later_call(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    turns = iter([True, True, False])
    stopped = Saliency(SMALL, go_on=lambda: next(turns, False))
    some = stopped.run(model, split, tmp_path, Ranks())
    assert stopped.left_out == 6
    assert {
        row["n"] for row in some.tables["saliency"].rows if row["figure"] == "auroc" and row["tool"] == "attention"
    } <= {1, 2}
    whole = Saliency(SMALL)
    found = whole.run(model, split, tmp_path, Ranks())
    fresh = Saliency(SMALL).run(model, split, None, Ranks())
    assert whole.left_out == 0
    assert found.tables["saliency"].rows == fresh.tables["saliency"].rows


def test_of_a_concept_the_prompt_stays_and_only_the_concept_is_another(
    split: LatentShardsDataset, model: LatentDiffusion
) -> None:
    measured = Saliency(SaliencyOptions(tools=["concept"], samples=6, timesteps=1))
    seen: list[Tensor] = []
    handle = model.unet.register_forward_hook(lambda module, inputs, output: seen.append(output.sample.clone()))
    try:
        measured.run(model, split, None, Ranks())
    finally:
        handle.remove()
    units = measured.units(split)
    askings = [2 if unit.absent is not None else 1 for unit in units]
    passes = len(seen) // sum(askings)
    assert passes >= 2
    place = askings.index(2)
    start = passes * sum(askings[:place])
    for own, absent in zip(seen[start : start + passes], seen[start + passes : start + 2 * passes], strict=True):
        assert torch.equal(own, absent)
    # control: another phrase is seen by this comparison
    assert not torch.equal(seen[start], seen[(start + 2 * passes) % len(seen)])


def test_pictures_of_what_is_shown(split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path) -> None:
    measured = Saliency(SMALL)
    measured.run(model, split, tmp_path / "out", Ranks())
    assert write_pictures(tmp_path / "media", 64, measured, split) == 1
    entries = json.loads((tmp_path / "media" / "000000064.json").read_text())
    assert {(one["tool"], one["timestep"]) for one in entries} == {
        (tool, step) for tool in ("attention", "end_token", "concept") for step in measured.steps
    }
    assert all((tmp_path / "media" / one[part]).is_file() for one in entries for part in ("map", "image"))
    sheets = sheets_of(measured, split)
    assert set(sheets) >= {"attention_phrases_by_timestep", "attention_layers_by_timestep"}
    # from the disk the maps are the same
    other = Saliency(SMALL)
    other.run(model, split, tmp_path / "out", Ranks())
    assert {name: sheet.tobytes() for name, sheet in sheets_of(other, split).items()} == {
        name: sheet.tobytes() for name, sheet in sheets.items()
    }


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="tools are attention, magic: name one or several of attention"):
        SaliencyOptions(tools=["attention", "magic"])
    with pytest.raises(UserError, match="timesteps"):
        SaliencyOptions(timesteps=41)
