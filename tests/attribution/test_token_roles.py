"""Roles of tokens in scenes, captions and reports, with any tokenizer; sums by role beside the published ones."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from meddiff.attribution.relevance import Relevance
from meddiff.attribution.relevance_by_role import Prompt, added_up, by_role, cost, published, shares, sums_by_role
from meddiff.attribution.token_roles import (
    SCENE,
    Triple,
    averaged,
    caption_roles,
    report_roles,
    scene_roles,
    token_kinds,
    word_groups,
)
from meddiff.common.errors import UserError
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from tests.builders.drawn_parts import CountedPasses, make_attentive_model
from tests.builders.towers import KINDS

TOKENIZER = ClipTokenizer()


def words_of(text: str, mask: Tensor) -> list[str]:
    """The words that have a token in a mask."""
    return [word.text for word in TOKENIZER.words(text) if bool(mask[word.start : word.stop].any())]


def test_roles_of_a_scene() -> None:
    scene = Triple("a polar bear", "riding", "a red bicycle")
    roles = scene_roles(TOKENIZER, scene)
    assert list(roles) == list(SCENE)
    assert words_of(scene.text, roles["subject"]) == ["a", "polar", "bear"]
    assert words_of(scene.text, roles["relation"]) == ["riding"]
    assert words_of(scene.text, roles["object"]) == ["a", "red", "bicycle"]
    assert torch.stack(list(roles.values())).sum(dim=0).max() == 1, "no token has two"
    with pytest.raises(UserError, match="each with a word"):
        scene_roles(TOKENIZER, Triple("a bear", " ", "a bicycle"))


def test_roles_of_a_caption_of_coco() -> None:
    text = "Two dogs, sleeping on the brown couch by a cat."
    roles = caption_roles(TOKENIZER, text)
    assert roles is not None
    assert words_of(text, roles["subject"]) == ["dogs,"]
    assert words_of(text, roles["relation"]) == ["sleeping", "on", "brown"]
    assert words_of(text, roles["object"]) == ["couch"]
    assert caption_roles(TOKENIZER, "A dog and a dog.") is None
    assert caption_roles(TOKENIZER, "Nothing to see.") is None


def test_roles_of_a_report() -> None:
    text = "Small effusions at the left base, and edema."
    roles = report_roles(TOKENIZER, text)
    assert words_of(text, roles["finding"]) == ["effusions", "edema."]
    assert words_of(text, roles["relation"]) == ["at"]
    assert words_of(text, roles["place"]) == ["left", "base,"]
    assert words_of(text, report_roles(TOKENIZER, text, "Edema")["finding"]) == ["edema."]


@pytest.mark.parametrize("kind", ["bert", "t5", "clip_few"])
def test_every_tokenizer_tells_words_from_special_tokens(kind: str, tmp_path: Path) -> None:
    tokenizer = build_text_encoder(KINDS[kind](tmp_path).source).tokenizer
    text = "the pleural effusion is small"
    kinds = token_kinds(tokenizer, text)
    special = kinds["start"] | kinds["end"] | kinds["padding"]
    assert not (kinds["words"] & special).any()
    if kind == "bert":  # others have pieces for blanks, which belong to no word
        assert (kinds["words"] | special).all()
    assert bool(kinds["start"].any()) is (kind != "t5")
    assert (kinds["function"] & ~kinds["words"]).sum() == 0
    names, weights = word_groups(tokenizer, text)
    assert list(names) == text.split()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(averaged(kinds["words"]).sum(), torch.tensor(1.0))


def test_words_that_were_cut_off_have_no_tokens() -> None:
    text = "left " * 80 + "effusion"
    assert not report_roles(TOKENIZER, text)["finding"].any()
    assert len(word_groups(TOKENIZER, text)[0]) == 75
    assert averaged(report_roles(TOKENIZER, text)["finding"]).eq(0).all()


def test_sums_by_role_and_shares_of_what_means_nothing() -> None:
    scene = Triple("bear", "on", "bicycle")
    words, roles = token_kinds(TOKENIZER, scene.text), scene_roles(TOKENIZER, scene)
    sums = torch.zeros(2, 77)
    sums[:, 0], sums[:, 1:4], sums[:, 4] = 10.0, torch.tensor([[4.0, 0.0, 2.0], [1.0, 3.0, 2.0]]), 4.0
    found = Relevance(sums, torch.zeros(2, 0, 4, 4), (), "")
    values = by_role(found, roles, words["words"])
    assert {role: one.tolist() for role, one in values.items()} == {
        "subject": [1.0, 0.0],
        "relation": [0.0, 1.0],
        "object": [0.5, 0.5],
    }
    assert shares(found, words)["start"].tolist() == [0.5, 0.5]
    assert shares(found, words)["end"].tolist() == pytest.approx([0.2, 0.2])
    assert shares(found, words)["function"].tolist() == pytest.approx([0.0, 0.15])
    lacking = {**values, "object": torch.tensor([torch.nan, torch.nan])}
    rows = {row.role: row for row in added_up("uniform", [values, lacking])}
    assert (rows["subject"].total, rows["subject"].number, rows["subject"].per_step) == (2.0, 4, 0.5)
    assert (rows["object"].total, rows["object"].number) == (1.0, 2)


def test_published_sums_are_those_of_the_paper() -> None:
    """Specification, section B5: early schedules move weight from the subject to the object, in the first run."""
    rows = {(row.source, row.schedule, row.role): row for row in published()}
    assert len(rows) == 18
    first = {key[1:]: row.total for key, row in rows.items() if "first" in key[0]}
    assert first["uniform", "subject"] == 2117.3
    assert first["exponential_late", "relation"] == 423.5
    assert first["exponential_early", "object"] == 1890.2
    assert all(0 < row.per_step < 1 for row in rows.values())
    assert first["exponential_early", "subject"] < first["uniform", "subject"]


def test_sums_of_drawn_scenes_by_schedule() -> None:
    """The same noise under every schedule, so the same list twice gives the same sums; the cost is what is computed."""
    model = make_attentive_model(8)
    prompts = [
        Prompt(one.text, scene_roles(TOKENIZER, one))
        for one in (Triple("bear", "on", "bicycle"), Triple("cat", "near", "dog"))
    ]
    schedules = {"uniform": [900, 500, 100], "again": [900, 500, 100], "exponential_early": [999, 900, 700]}
    told: list[int] = []
    with CountedPasses(model) as passes:
        rows = sums_by_role(model, prompts, schedules, guidance_scale=2.0, on_progress=told.append)
    assert [(row.schedule, row.role) for row in rows] == [(name, role) for name in schedules for role in SCENE]
    assert all(row.number == 6 and 0 <= row.per_step <= 1 and row.source == "measured" for row in rows)
    assert [row.total for row in rows[:3]] == pytest.approx([row.total for row in rows[3:6]])
    assert [row.total for row in rows[:3]] != pytest.approx([row.total for row in rows[6:]])
    assert sum(told) == cost(2, schedules) == 2 * 9 * 5
    assert passes.samples == 2 * 9 * 3, "backward passes count as two more"
