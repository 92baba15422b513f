"""A word against the other findings of its image: what is compared, and what has no word to compare."""

import numpy as np
import torch
from numpy.typing import NDArray

from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.evaluation.grounding_scores import grounding_summary, score_sample
from meddiff.evaluation.measurement import Value
from meddiff.evaluation.samples import GroundingSample
from meddiff.models.text.clip_tokenizer import ClipTokenizer

TOKENIZER = ClipTokenizer()

SIZE = 32


def masks() -> dict[str, NDArray[np.bool_]]:
    found = {name: np.zeros((SIZE, SIZE), dtype=bool) for name in ("Cardiomegaly", "Edema", "tube")}
    found["Cardiomegaly"][20:30, 4:12] = True
    found["Edema"][4:12, 20:30] = True
    found["tube"][:, 15] = True
    return found


def row(phrase: str, hot: str) -> dict[str, Value]:
    """Scores of a map that is high on the mask of ``hot``, for a phrase about the heart."""
    sample = GroundingSample(0, "k0", "Cardiomegaly", phrase, np.array([[4.0, 20.0, 8.0, 10.0]]), (SIZE, SIZE))
    noise = torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    heat = noise + torch.from_numpy(masks()[hot]).float()
    return score_sample(sample, query_tokens(TOKENIZER, phrase, QUERY_WORDS["Cardiomegaly"]), heat, masks())


def test_the_own_finding_comes_first_where_the_map_lies_on_it():
    own, other = row("Marked cardiomegaly.", "Cardiomegaly"), row("Marked cardiomegaly.", "Edema")
    assert own["mask_cnr"] > 2 > 0 > own["other/Edema"]
    assert "confounder/tube" in own
    assert "other/Cardiomegaly" not in own
    assert "other/tube" not in own
    assert grounding_summary([own])["own_beats_other"] == 1
    assert grounding_summary([other])["own_beats_other"] == 0
    assert grounding_summary([own, other])["own_beats_other"] == 0.5


def test_a_phrase_that_names_no_query_word_is_not_compared_but_scored():
    unnamed = row("The heart is markedly enlarged.", "Cardiomegaly")
    assert unnamed["cnr"] > 1
    assert not [name for name in unnamed if name.startswith("other/")]
    assert "confounder/tube" in unnamed
    summary = grounding_summary([unnamed])
    assert summary["fallback"] == 1
    assert "own_beats_other" not in summary


def test_anatomy_and_unknown_masks_are_no_confounders():
    """Lungs that the map lies on are what it should lie on: their CNR is no sign of a shortcut."""
    sample = GroundingSample(0, "k0", "Cardiomegaly", "Cardiomegaly.", np.array([[4.0, 20.0, 8.0, 10.0]]), (SIZE, SIZE))
    query = query_tokens(TOKENIZER, "Cardiomegaly.", QUERY_WORDS["Cardiomegaly"])
    heat = torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    others = {name: masks()["tube"] for name in ("Left Lung", "heart", "Nodule", "Heart Contour")}
    found = score_sample(sample, query, heat, {**masks(), **others})
    assert {name for name in found if name.startswith("confounder/")} == {"confounder/tube"}
    assert {name for name in found if name.startswith("region/")} == {f"region/{name}" for name in others}
    plain = score_sample(sample, query, heat, masks())
    assert grounding_summary([found])["confounder_cnr"] == grounding_summary([plain])["confounder_cnr"]
