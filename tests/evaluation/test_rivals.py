"""Rival maps: what they cost, that they do not hang on batches, ranks or a stop, and the controls that stand in their table."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from meddiff.common.errors import UserError
from meddiff.evaluation.measurement import Result, Row
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.rival_maps import Asking, Settings
from meddiff.evaluation.rival_options import PRESETS, RivalsOptions
from meddiff.evaluation.rival_protocols import Merged
from meddiff.evaluation.rivals import Rivals
from meddiff.evaluation.samples import evaluation_latents, grounding_samples
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import CountedPasses, make_attentive_model, run_part
from tests.builders.thread_ranks import on_two_ranks

OPTIONS = RivalsOptions(samples=6, timesteps=2, bbm_steps=4, inversion_steps=10)
CONTROLS = ("blind", "centre", "class_prior", "planted")


@pytest.fixture(scope="module")
def split(shards: Path) -> LatentShardsDataset:
    return LatentShardsDataset(shards, "grounding")


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    return make_attentive_model(8, vae=str(vae_folder))


@dataclass
class Measured:
    """One run into a folder, and what the U-Net computed for it."""

    folder: Path
    passes: int
    rows: dict[str, dict[str, str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def measured(split: LatentShardsDataset, model: LatentDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("rivals")
    with CountedPasses(model) as counted:
        run_part(Rivals(OPTIONS), model, split, folder)
    return Measured(folder, counted.samples, {row["preset"]: row for row in read_table(folder / "rivals.csv")})


def numbers(result: Result, table: str = "rivals") -> dict[tuple[object, ...], dict[str, float]]:
    """What is told of each preset (and phrase), but for how long it took."""
    names = ("preset", "key", "class", "phrase", "half", "part", "pixels")

    def cells(row: Row) -> dict[str, float]:
        return {
            name: math.nan if value is None else float(value)
            for name, value in row.items()
            if name not in (*names, "kind", "seconds")
        }

    return {tuple(row.get(name) for name in names): cells(row) for row in result.tables[table].rows}


def test_every_preset_is_scored_on_the_same_phrases_at_the_price_that_is_said(
    split: LatentShardsDataset, model: LatentDiffusion, measured: Measured
) -> None:
    assert measured.passes == Rivals(OPTIONS).cost(model, split)
    assert list(measured.rows) == [
        *("words", "layers", *(name for name in PRESETS if name not in ("words", "layers"))),
        *CONTROLS,
    ]
    kinds = {row["kind"] for row in measured.rows.values()}
    assert kinds == {"own", "rival", "control"}
    scored: dict[str, set[tuple[str, str, str]]] = {}
    for row in read_table(measured.folder / "rival_scores.csv"):
        scored.setdefault(row["preset"], set()).add((row["key"], row["class"], row["phrase"]))
    assert len({frozenset(phrases) for phrases in scored.values()}) == 1
    assert len(scored["words"]) == 6
    evaluations = {name: float(row["evaluations"]) for name, row in measured.rows.items()}
    assert evaluations["words"] == evaluations["concept_output"] == 2
    assert evaluations["bbm"] == evaluations["bbm_elementwise"] == 4 * 3
    assert evaluations["ldm_inversion"] == 5 + 2, "0 to 400 on the way up, and 400 and 500 with the text"
    assert evaluations["centre"] == 0
    assert all(float(row["seconds"]) > 0 for row in measured.rows.values())
    few = Rivals(replace(OPTIONS, samples=2, presets=["ldm_inversion", "layers"]))
    with CountedPasses(model) as counted:
        few.run(model, split, None, Ranks())
    assert counted.samples == few.cost(model, split)


def test_presets_are_different_maps(measured: Measured) -> None:
    cnr = {name: row["cnr"] for name, row in measured.rows.items() if name in PRESETS}
    assert len(set(cnr.values())) == len(cnr), "no preset is another one by another name"
    assert float(cnr["ldm_inversion"]) != pytest.approx(float(cnr["ldm_inversion_uncut"]), abs=1e-3)


def test_a_map_blind_to_words_gains_nothing_and_the_right_answer_keeps_its_score(measured: Measured) -> None:
    rows = measured.rows
    for name in ("blind", "centre"):
        assert (float(rows[name]["gain_absent"]), float(rows[name]["gain"])) == (0.0, 0.0), name
    assert rows["blind"]["cnr"] == rows["words"]["cnr"], "its CNR is as good as that of the map it repeats"
    planted = rows["planted"]
    assert float(planted["gain_absent"]) == pytest.approx(float(planted["cnr"]), rel=0.05)
    assert float(planted["gain"]) > 10
    assert float(planted["auroc"]) > 0.99
    assert float(planted["top1"]) == 1.0


def test_layers_are_worth_what_the_phrases_say_that_did_not_choose_them(
    split: LatentShardsDataset, model: LatentDiffusion, measured: Measured
) -> None:
    """Moments chose and tell; the maps, made anew of the chosen layers, must have the same CNR."""
    layers = read_table(measured.folder / "rival_layers.csv")
    groups = {(row["part"], row["pixels"]) for row in layers}
    assert len(groups) > 2
    assert len(layers) == 2 * len(groups)
    told = {row["half"]: (float(row["held_out_cnr"]), float(row["n"])) for row in layers}
    assert sum(n for _, n in told.values()) == 6
    mean = sum(cnr * n for cnr, n in told.values()) / 6
    assert float(measured.rows["layers"]["cnr"]) == pytest.approx(mean, rel=1e-4)
    assert all(any(float(row["chosen"]) for row in layers if row["half"] == half) for half in told)


def test_what_is_done_is_not_done_again_and_other_settings_are_refused(
    split: LatentShardsDataset, model: LatentDiffusion, measured: Measured
) -> None:
    before = (measured.folder / "rivals.csv").read_bytes()
    with CountedPasses(model) as counted:
        run_part(Rivals(OPTIONS), model, split, measured.folder)
        found = Rivals(replace(OPTIONS, presets=["bbm"])).run(model, split, measured.folder, Ranks())
    assert counted.samples == 0, "nor is it for other presets"
    assert [row["preset"] for row in found.tables["rivals"].rows] == ["bbm", *CONTROLS]
    assert (measured.folder / "rivals.csv").read_bytes() == before
    with pytest.raises(UserError, match=r"other settings \(bbm_steps\)"):
        Rivals(replace(OPTIONS, bbm_steps=5)).run(model, split, measured.folder, Ranks())


def test_two_ranks_and_other_batches_find_the_same(split: LatentShardsDataset, model: LatentDiffusion) -> None:
    options = replace(OPTIONS, samples=3, presets=["words", "layers", "ldm_inversion"], batch_size=16)
    alone = Rivals(options).run(model, split, None, Ranks())
    both = on_two_ranks(Rivals(replace(options, batch_size=7)), model, split)
    for table in ("rivals", "rival_scores", "rival_layers"):
        expected = numbers(alone, table)
        for result in both:
            found = numbers(result, table)
            assert found.keys() == expected.keys()
            for name, cells in expected.items():
                assert found[name] == pytest.approx(cells, rel=2e-2, abs=2e-3, nan_ok=True), name


def test_what_cannot_be_is_said_before_anything_starts() -> None:
    for presets, word in ((["wordz"], "wordz"), ([], "none"), (["words", "words"], "each once")):
        with pytest.raises(UserError, match=word):
            RivalsOptions(presets=presets)
    for name, value in (("timesteps", 41), ("samples", 0), ("bbm_guidance", -1.0), ("bbm_guidance", math.nan)):
        with pytest.raises(UserError, match=name):
            RivalsOptions(**{name: value})  # type: ignore[arg-type]
    for name, value in (("bbm_steps", 0), ("inversion_steps", 3)):
        with pytest.raises(UserError, match=name):
            Rivals(RivalsOptions(**{name: value}))  # type: ignore[arg-type]


def test_a_text_encoder_without_a_start_token_has_no_merge(
    split: LatentShardsDataset, model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = grounding_samples(split, ["Edema", "Pneumonia", "Cardiomegaly"])[0][0]
    asking = Asking(sample, sample, evaluation_latents(split, sample.index, 0))
    merged = Merged(Settings([500], 0, 8), 2, 2.0)
    assert set(merged.answers(model, [asking])[0].maps) == {"bbm", "bbm_elementwise"}
    monkeypatch.setattr(model.text_encoder.tokenizer, "starts", 0)
    with pytest.raises(UserError, match="leave bbm"):
        merged.answers(model, [asking])
    assert torch.is_grad_enabled(), "nothing is left switched off"
