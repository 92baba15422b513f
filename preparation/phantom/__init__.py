"""The embedded cohort: chest-X-ray phantoms with known truth. See ``docs/phantoms.md``."""

from preparation.phantom.cohort import PhantomCohort
from preparation.phantom.options import PhantomOptions

__all__ = ["PhantomCohort", "PhantomOptions"]
