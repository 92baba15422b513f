"""Names of prototypes: the planted one is found with its sign, chance is not, words of denied findings are not the finding."""

import numpy as np
import pytest

from meddiff.evaluation.prototype_naming import (
    CONFOUNDER,
    LABEL,
    WORD,
    Concept,
    asserted_words,
    aurocs,
    best_of,
    concepts_of,
    name_prototypes,
)
from meddiff.metrics.statistics import auroc
from meddiff.shards.schema import SampleMetadata

LABELS = [Concept(LABEL, "Edema"), Concept(LABEL, "Pneumonia"), Concept(CONFOUNDER, "tube")]


def planted(images: int = 300, prototypes: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Prototype 3 grows with Edema, 7 falls with Pneumonia, the others are noise."""
    rng = np.random.default_rng(0)
    flags = rng.uniform(size=(images, 3)) < [0.3, 0.2, 0.5]
    values = rng.normal(0, 1, (images, prototypes))
    values[:, 3] += 1.5 * flags[:, 0]
    values[:, 7] -= 1.5 * flags[:, 1]
    return values, flags


def test_aurocs_are_those_of_the_metric() -> None:
    values, flags = planted(60, 8)
    values[:, 0] = np.round(values[:, 0])  # ties
    found = aurocs(values, flags)
    for prototype in range(5):
        for column in range(3):
            expected = auroc(values[:, prototype], flags[:, column]).item()
            assert found[prototype, column] == pytest.approx(expected)


def test_names_have_a_sign_and_chance_has_none() -> None:
    values, flags = planted()
    found, control = name_prototypes(values, LABELS, flags, draws=199)
    names = {one.prototype: one.text for one in found if one.is_name}
    assert names == {3: "Edema", 7: "not Pneumonia"}
    assert found[7].auroc < 0.3
    assert not any(one.is_name for one in control)
    # the cheapest cheat, a name for everything above 0.55 or below 0.45, would name noise
    assert sum(abs(one.auroc - 0.5) > 0.05 for one in found) > 10


def test_what_rises_is_told_from_what_falls() -> None:
    values, flags = planted()
    areas = aurocs(values, flags)
    assert best_of(areas, 0)[0] == 3
    assert 7 not in best_of(areas, 1, 30)
    assert all(areas[one, 1] > 0.5 for one in best_of(areas, 1, 30))


@pytest.mark.parametrize(
    ("text", "labels", "there", "gone"),
    [
        ("No pleural effusion. Mild edema.", ["Edema"], {"edema", "mild"}, {"effusion", "pleural"}),
        ("Without pneumothorax or consolidation.", [], set(), {"pneumothorax", "consolidation"}),
        ("Effusion is absent.", [], {"absent"}, {"effusion"}),  # no rule sees it, the label does
        ("Large effusion, but no pneumonia.", ["Pleural Effusion"], {"large", "effusion"}, {"pneumonia"}),
    ],
)
def test_denied_words_are_not_said(text: str, labels: list[str], there: set[str], gone: set[str]) -> None:
    found = asserted_words(text, labels)
    assert there <= found
    assert not gone & found


def sample(number: int, labels: list[str], impression: str, confounders: list[str]) -> SampleMetadata:
    return {
        **{"impression": impression, "labels": labels, "split": "val", "patient_id": str(number), "view": "PA"},
        **{"captions": [], "phrases": [], "boxes": [], "attributes": {"confounders": confounders}, "source": ""},
        **{"width": 8, "height": 8, "mask_names": {}},
    }  # type: ignore[typeddict-item]


def test_concepts_are_what_enough_images_have_and_lack() -> None:
    some = [sample(i, ["Edema"], "Mild edema.", ["tube"] if i % 2 else []) for i in range(20)]
    some += [sample(20 + i, ["No Finding"], "No edema. Clear lungs.", []) for i in range(20)]
    some.append(sample(40, ["Pneumonia"], "Rarely said.", []))
    concepts, flags = concepts_of(some)
    assert Concept(LABEL, "Edema") in concepts
    assert Concept(CONFOUNDER, "tube") in concepts
    assert Concept(LABEL, "Pneumonia") not in concepts  # one image
    assert not any(one.kind == "view" for one in concepts)  # all have it
    edema = flags[:, concepts.index(Concept(WORD, "edema"))]
    assert edema[:20].all()
    assert not edema[20:].any()
