"""How much of a concept a picture shows: a linear probe on the features of a fixed network, taught on balanced real images.

The domain classifier knows findings and no confounders, and neither it nor torchxrayvision was trained on the size or the
look of every cohort's pictures. So both concepts of a shortcut are scored alike, by probes that are taught on one half of a
held-out split in which the two are independent, and judged on the other half. Their unit is the standard deviation of the
score over real images. A probe may answer to the other concept, too: how much is measured (``leak``) and stands beside
every result. Source: own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.evaluation.linear_probe import Probe, fit_probe
from meddiff.metrics.statistics import auroc
from meddiff.shards.agreement import has
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.schema import SampleMetadata
from meddiff.shards.stamp import Stamp

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: Images that must have, and lack, a concept for its probe to be taught.
FEWEST = 15
#: What a marker that is stamped on pictures is called.
STAMP = "stamp"


def has_concept(metadata: SampleMetadata, name: str) -> bool:
    """Whether an image has a finding, a confounder or a view of this name, in any case, or an attribute that says yes.

    Example:
        >>> has_concept({"labels": ["Edema"], "view": "PA", "attributes": {"confounders": ["tube"]}}, "Tube")
        True
    """
    if has(metadata, name):
        return True
    attributes = metadata["attributes"] if isinstance(metadata["attributes"], dict) else {}
    confounders = attributes.get("confounders")
    found = [*metadata["labels"], metadata["view"], *(confounders if isinstance(confounders, list) else ())]
    return name.lower() in {str(one).lower() for one in found}


def check_concept(name: str, flags: Flags, where: str) -> None:
    """Refuse a concept that is too rare, or too common, to be taught.

    Raises:
        UserError: it is.
    """
    having = int(flags.sum())
    if min(having, len(flags) - having) < FEWEST:
        raise UserError(
            f"{where} has {having} of {len(flags)} images with {name!r}: a probe needs at least {FEWEST} with and without it; "
            f"name another finding or confounder, or another split."
        )


class ConceptScorer(NamedTuple):
    """A taught probe.

    Attributes:
        probe: of the two classes, lacking and having.
        unit: standard deviation of its raw score over real images.
    """

    probe: Probe
    unit: float

    def scores(self, features: Floats) -> Floats:
        """(N, D) -> (N,), more where more of the concept is seen, in standard deviations of real images."""
        raw: Floats = _raw(self.probe, features) / self.unit
        return raw


def teach(features: Floats, flags: Flags) -> ConceptScorer:
    """A scorer from features (N, D) of real images and whether each has the concept, (N,)."""
    probe = fit_probe(features, flags.astype(np.int64))
    return ConceptScorer(probe, max(float(_raw(probe, features).std()), 1e-12))


def _raw(probe: Probe, features: Floats) -> Floats:
    standard = (features - probe.mean) / probe.scale
    found: Floats = standard @ (probe.matrix[:, 1] - probe.matrix[:, 0]) + (probe.offset[1] - probe.offset[0])
    return found


class Quality(NamedTuple):
    """What a pair of scorers is worth on images that taught neither.

    Attributes:
        own, other: AUROC of A's and of B's scorer on A and B.
        leak: what an edit that puts A alone into a picture would be taken for: B's score per unit of A's, by regression of
            both scores on both concepts. 0 for scorers that mix nothing up.
        correlation: of A and B themselves on those images (phi).
    """

    own: float
    other: float
    leak: float
    correlation: float


def quality(own_scores: Floats, other_scores: Floats, own: Flags, other: Flags) -> Quality:
    """Of scores (N,) of real held-out images and their concepts (N,)."""
    design = np.column_stack([np.ones(len(own)), own, other]).astype(float)  # (N, 3)
    slopes = np.linalg.lstsq(design, np.column_stack([own_scores, other_scores]), rcond=None)[0]  # (3, 2)
    effect = float(slopes[1, 0])
    phi = float(np.corrcoef(own, other)[0, 1]) if own.std() > 0 and other.std() > 0 else float("nan")
    return Quality(
        float(auroc(own_scores, own)[0]),
        float(auroc(other_scores, other)[0]),
        float(slopes[1, 1]) / effect if effect > 0 else float("nan"),
        phi,
    )


def flags_of(split: LatentShardsDataset, indices: Sequence[int], name: str) -> Flags:
    """Which images of a split have a concept, (N,); ``stamp`` is the marker that the split itself puts on pictures."""
    stamp = getattr(split, "stamp", None)
    if isinstance(stamp, Stamp) and name == STAMP:
        return np.array([split.keys[index] in stamp.keys for index in indices])
    return np.array([has_concept(split.metadata(index), name) for index in indices])
