"""What tests of phantoms compare: all bytes of one in a line, and the sides its masks lie on."""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from meddiff.phantoms import PhantomCohort, openi

#: A finding that comes with a thing more or less often than not.
CONFOUNDED = ("pacemaker:cardiomegaly:0.9", "tube:pneumothorax", "text:edema:-0.3")

needs_reports = pytest.mark.skipif(
    openi.data_file("NLMCXR_reports.tgz") is None, reason="torchxrayvision's reports are not installed"
)


def fingerprint(cohort: PhantomCohort, index: int) -> str:
    """sha256 of image, text, masks and facts; for comparison on one machine: pixels differ in the last bit elsewhere."""
    sample = cohort[index]
    digest = hashlib.sha256(sample.image.tobytes() + sample.impression.encode())
    for name in sorted(sample.masks):
        digest.update(name.encode() + sample.masks[name].tobytes())
    digest.update(repr((sample.boxes, sample.labels, sample.attributes, sample.view)).encode())
    return digest.hexdigest()


def mask_sides(mask: NDArray[np.bool_], x: NDArray[np.floating]) -> set[str]:
    """Sides of the patient that a mask (H, W) lies on; ``x`` (H, W) > 0 is the left."""
    return {side for side, half in (("left", x > 0), ("right", x < 0)) if (mask & half).any()}
