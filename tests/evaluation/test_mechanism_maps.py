"""Planted attention: all of it on the end token, or each word on a place that is known, is what is found; and only that."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from meddiff.attribution.grounding_pass import paper_timesteps
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.mechanism_maps import (
    ALL,
    Found,
    add_phrase,
    mean_shares,
    measure_maps,
    ratio_rows,
    share_rows,
    targets,
    travelling,
    word_rows,
)
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import GroundingSample, grounding_samples
from meddiff.evaluation.word_roles import pieces
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import make_attentive_model
from tests.builders.tiny import make_shards

TOKENIZER = ClipTokenizer()
STEPS = paper_timesteps(2)
CONFOUNDERS = ("pacemaker:cardiomegaly:0.9", "tube:pneumothorax:0.9")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    folder = tmp_path_factory.mktemp("confounded") / "s"
    make_shards(folder, vae_folder, n=60, val=2, grounding=50, fidelity=2, normal=0.0, confounders=CONFOUNDERS)
    return LatentShardsDataset(folder, "grounding")


@pytest.fixture(scope="module")
def samples(split: LatentShardsDataset) -> list[GroundingSample]:
    return grounding_samples(split, list(QUERY_WORDS))[0]


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(8)


def shares(found: Found) -> dict[str, float]:
    return {str(row["place"]): float(row["value"] or 0) for row in mean_shares(found)}


def test_shares_of_all_tokens_are_one_in_every_layer_and_timestep(
    model: LatentDiffusion, split: LatentShardsDataset, samples: list[GroundingSample]
) -> None:
    found = measure_maps(model, split, samples[:6], STEPS)
    total: dict[tuple[object, object], float] = {}
    for row in share_rows(found):
        if row["place"] != "words":
            place = row["layer"], row["timestep"]
            total[place] = total.get(place, 0.0) + float(row["share"] or 0)
    assert len(total) == len(STEPS) * sum("attn2" in name for name in model.unet.attn_processors)
    assert list(total.values()) == pytest.approx([1.0] * len(total), abs=1e-5)
    mean = shares(found)
    assert mean["words"] + mean["start"] + mean["end"] + mean["padding"] == pytest.approx(1.0, abs=1e-5)
    assert 0.01 < mean["finding"] < mean["words"]


def test_attention_that_sees_the_end_token_alone_is_all_on_it(
    split: LatentShardsDataset, samples: list[GroundingSample], monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = make_attentive_model(8)
    end = TOKENIZER.end_id

    def only_the_end(tokens: Tensor) -> Tensor:
        return tokens == end

    monkeypatch.setattr(blind.text_encoder, "mask", only_the_end)
    found = shares(measure_maps(blind, split, samples[:4], STEPS))
    assert found["end"] == pytest.approx(1.0, abs=1e-6)
    assert max(value for place, value in found.items() if place != "end") < 1e-6


def test_the_findings_word_has_the_ratio_of_grounding(
    model: LatentDiffusion, split: LatentShardsDataset, samples: list[GroundingSample]
) -> None:
    """The same maps, noise and masks: two measurements of one thing do not disagree."""
    named = [one for one in samples if not query_tokens(TOKENIZER, one.phrase, QUERY_WORDS[one.label]).is_fallback]
    found = measure_maps(model, split, named[:12], STEPS)
    entries = Grounding(GroundingOptions(timesteps=len(STEPS))).entries(model, split, None, Ranks())
    theirs = {(one["row"]["key"], one["row"]["class"], one["row"]["phrase"]): one["row"] for one in entries}
    ours = found.cnr["finding", "finding", ALL]
    assert len(ours) == 12
    for sample, (key, value) in zip(named, ours, strict=False):
        assert key == sample.key
        assert value == pytest.approx(float(theirs[sample.key, sample.label, sample.phrase]["mask_cnr"] or 0), abs=1e-4)


def test_the_batch_changes_nothing(
    model: LatentDiffusion, split: LatentShardsDataset, samples: list[GroundingSample]
) -> None:
    one, other = (measure_maps(model, split, samples[:5], STEPS, batch_size=size) for size in (64, 3))
    for key, values in one.cnr.items():
        assert [v for _, v in values] == pytest.approx([v for _, v in other.cnr[key]], abs=1e-3, nan_ok=True)


def test_what_travels_with_a_finding_is_told_from_what_travels_with_another(
    split: LatentShardsDataset, samples: list[GroundingSample]
) -> None:
    ties = travelling(split)
    assert ties == {"pacemaker": "Cardiomegaly", "tube": "Pneumothorax"}
    seen = set()
    for sample in samples:
        there = split.masks(sample.index)
        found = targets(split, sample, ties)
        own = [name for name in ("pacemaker", "tube") if name in there and ties[name] == sample.label]
        other = [name for name in ("pacemaker", "tube") if name in there and ties[name] != sample.label]
        assert len(found.get("confounder", [])) == len(own)
        assert len(found.get("other confounder", [])) == len(other)
        assert len(found["finding"]) == 1
        seen |= set(found)
    assert seen == {"finding", "other finding", "confounder", "other confounder"}


def test_planted_words_are_found_where_they_were_planted(
    split: LatentShardsDataset, samples: list[GroundingSample]
) -> None:
    """The finding's word lights up its finding, the end token the confounder; everything else is noise."""
    found, ties = Found(), travelling(split)
    for number, sample in enumerate(samples):
        part, masks = pieces(TOKENIZER, sample.phrase, sample.label), targets(split, sample, ties)
        maps = torch.rand(2, 1, len(part), 64, 64, generator=torch.Generator().manual_seed(number))
        lit = {"finding": masks["finding"], "end": masks.get("confounder", [])}
        for k, piece in enumerate(part):
            for mask in lit.get(piece.role, []):
                maps[:, :, k] += 2.0 * mask.float()
        add_phrase(found, sample, part, maps, ["a layer"], [1, 2], masks)
        found.keys.append(sample.key)
    cells = {(row["role"], row["target"], row["timestep"]): float(row["value"] or 0) for row in ratio_rows(found)}
    for timestep in (ALL, "1", "2"):
        assert cells["finding", "finding", timestep] > 2
        assert cells["end", "confounder", timestep] > 2
    quiet = {
        place: value
        for place, value in cells.items()
        if place[:2] not in (("finding", "finding"), ("end", "confounder")) and place[2] == ALL and place[0] != "denial"
    }
    # findings and confounders of one image may overlap: what is lit on one is then also lit on the other
    assert max(map(abs, quiet.values())) < 1.0, quiet
    assert abs(cells["padding", "finding", ALL]) < 0.2
    words = {(row["word"], row["target"]): float(row["value"] or 0) for row in word_rows(found)}
    assert words["pneumothorax", "finding"] > 2
    assert abs(words["the", "finding"]) < 0.2
