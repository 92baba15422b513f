"""What is a prototype about? Its signed AUROC with labels, confounders and words of reports, corrected for the many tries.

    auroc > 0.5: the concept's images have more of the prototype, < 0.5: less (the published code takes the larger of the two
    and so loses which way an edit goes, A7.8)

A hundred prototypes times sixty concepts always hold a pair that looks related, so a name needs an adjusted p below 0.05:
the chance that *any* of all pairs is that far from 0.5 when images and concepts are shuffled against each other (Westfall
and Young 1993, max-T). The same search on shuffled concepts is the control. Words of denied findings are not the finding:
"No effusion." does not make an image one with an effusion. Source: own (spec/patronus_and_visual_analysis.md, A7.8, A10).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from meddiff.attribution.token_roles import DENIALS, FUNCTION
from meddiff.common.draws import generator
from meddiff.common.findings import NO_FINDING
from meddiff.phantoms.mentions import CHEST_NAMES
from meddiff.phantoms.report_words import denied_spans
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.schema import SampleMetadata

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: Permutations, and what an adjusted p has to be below.
DRAWS, LEVEL = 999, 0.05
#: A concept that fewer images have, or lack, names nothing.
FEWEST = 10
#: Words that are looked at, the commonest first.
WORDS = 40
#: Kinds of concepts.
LABEL, CONFOUNDER, VIEW, WORD = "label", "confounder", "view", "word"
_FINDING_WORDS = {label: re.compile(rf"\b(?:{names})\b", re.I) for label, names in CHEST_NAMES.items()}


class Concept(NamedTuple):
    """What images can have or lack.

    Attributes:
        kind: label, confounder, view or word.
        name: as data or reports call it.
    """

    kind: str
    name: str


@dataclass(frozen=True)
class Named:
    """One prototype and the concept that it is related to most.

    Attributes:
        auroc: signed: below 0.5 the concept's images have less of the prototype.
        p: adjusted for all pairs; of a name it is below :data:`LEVEL`.
        images: that have the concept.
    """

    prototype: int
    concept: Concept
    auroc: float
    p: float
    images: int

    @property
    def is_name(self) -> bool:
        """Whether it may be called by the concept."""
        return self.p < LEVEL

    @property
    def text(self) -> str:
        """``Edema``, ``not Edema``, or nothing where chance could have done it."""
        if not self.is_name:
            return ""
        return ("" if self.auroc > 0.5 else "not ") + self.concept.name


def asserted_words(text: str, labels: Sequence[str]) -> set[str]:
    """Words that a report says of its image, in lower case: none of a denial, and no name of a finding that is not there.

    Args:
        labels: of the image: what names a finding without being labelled is denied in a way that no rule saw.

    Example:
        >>> sorted(asserted_words("Large left effusion. No pneumothorax or edema.", ["Pleural Effusion"]))
        ['effusion', 'large', 'left']
    """
    found: set[str] = set()
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", text):
        spans = denied_spans(sentence)
        spans += [
            match.span()
            for label, pattern in _FINDING_WORDS.items()
            for match in pattern.finditer(sentence)
            if label not in labels
        ]
        for match in re.finditer(r"[A-Za-z][A-Za-z-]{2,}", sentence):
            if not any(start <= match.start() < stop for start, stop in spans):
                found.add(match.group(0).lower())
    return found - FUNCTION - DENIALS


def concepts_of(metadata: Sequence[SampleMetadata]) -> tuple[list[Concept], Flags]:
    """The concepts that at least :data:`FEWEST` images have and lack, and which image has which, (N, L)."""
    kinds: dict[Concept, list[int]] = {}
    for place, one in enumerate(metadata):
        attributes: Mapping[str, object] = one["attributes"] if isinstance(one["attributes"], Mapping) else {}
        confounders = attributes.get("confounders")
        words = asserted_words(str(one["impression"]), one["labels"])
        some = [Concept(LABEL, name) for name in one["labels"]]
        some += [Concept(CONFOUNDER, str(name)) for name in (confounders if isinstance(confounders, list) else ())]
        some += [Concept(VIEW, str(one["view"]))] if one["view"] else []
        some += [Concept(WORD, word) for word in words]
        for concept in dict.fromkeys(some):
            kinds.setdefault(concept, []).append(place)
    fits = {one: at for one, at in kinds.items() if FEWEST <= len(at) <= len(metadata) - FEWEST}
    words_first = sorted((one for one in fits if one.kind == WORD), key=lambda one: (-len(fits[one]), one.name))
    chosen = sorted(one for one in fits if one.kind != WORD) + words_first[:WORDS]
    flags = np.zeros((len(metadata), len(chosen)), bool)
    for column, concept in enumerate(chosen):
        flags[fits[concept], column] = True
    return chosen, flags


def one_a_patient(split: LatentShardsDataset, indices: Sequence[int]) -> list[int]:
    """The first image of each patient: two of one are not independent."""
    found: dict[str, int] = {}
    for index in indices:
        patient = str(split.metadata(index)["patient_id"] or split.keys[index])
        found.setdefault(patient, index)
    return list(found.values())


def aurocs(activations: Floats, flags: Flags) -> Floats:
    """Signed AUROC of every prototype with every concept: (N, m), (N, L) -> (m, L); ties count half.

    NaN for a concept that all images have, or none.

    Example:
        >>> aurocs(np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 1.0]]), np.array([[False], [False], [True]])).tolist()
        [[1.0], [0.0]]
    """
    ranks, count = _ranks(activations), flags.sum(axis=0).astype(float)  # (N, m), (L,)
    rest = len(flags) - count
    with np.errstate(divide="ignore", invalid="ignore"):
        areas: Floats = (ranks.T @ flags - count * (count + 1) / 2) / (count * rest)
    return areas


def _ranks(activations: Floats) -> Floats:
    from scipy.stats import rankdata

    found: Floats = rankdata(activations, axis=0)
    return found


def name_prototypes(
    activations: Floats, concepts: Sequence[Concept], flags: Flags, seed: int = 0, draws: int = DRAWS
) -> tuple[list[Named], list[Named]]:
    """The concept that each prototype is related to most, and the same on shuffled concepts.

    Concepts of unlike frequency are compared by their standard score under the null, and shuffled together, image by image:
    they stay related to each other as they are.

    Args:
        activations: (N, m); flags: (N, L).
        seed: of the permutations.

    Returns:
        one a prototype for the data, and one a prototype for the control.
    """
    if not concepts:
        return [], []
    count = flags.sum(axis=0).astype(float)
    error = np.sqrt((len(flags) + 1) / (12 * count * (len(flags) - count)))  # (L,) of an AUROC when nothing is related
    ranks = _ranks(activations)

    def scores(order: NDArray[np.int64] | None) -> Floats:
        some = flags if order is None else flags[order]
        areas = (ranks.T @ some - count * (count + 1) / 2) / (count * (len(flags) - count))
        found: Floats = (areas - 0.5) / error  # (m, L)
        return found

    rng = generator(seed, "shuffled concepts")
    beyond = np.sort([float(np.abs(scores(rng.permutation(len(flags)))).max()) for _ in range(draws)])
    control = generator(seed, "shuffled concepts", "control").permutation(len(flags))

    def named(found: Floats) -> list[Named]:
        best = np.abs(found).argmax(axis=1)  # (m,)
        rows = []
        for prototype, column in enumerate(best.tolist()):
            score = float(found[prototype, column])
            above = draws - int(np.searchsorted(beyond, abs(score) - 1e-12))
            area = 0.5 + score * float(error[column])
            rows.append(Named(prototype, concepts[column], area, (1 + above) / (1 + draws), int(count[column])))
        return rows

    return named(scores(None)), named(scores(control))


def best_of(areas: Floats, column: int, number: int = 1) -> list[int]:
    """The prototypes that grow most with a concept, by signed AUROC, (m, L): the first is what an edit raises.

    Prototypes that fall with it are not among them, however far below 0.5: raising one of those would lower the concept.
    """
    order = np.argsort(-np.nan_to_num(areas[:, column], nan=-math.inf), kind="stable")
    return [int(one) for one in order[:number] if areas[one, column] > 0.5]


def labels_of(metadata: Sequence[SampleMetadata]) -> list[str]:
    """The findings that are labelled, in order of their names."""
    return sorted({name for one in metadata for name in one["labels"]} - {NO_FINDING})
