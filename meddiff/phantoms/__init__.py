"""The embedded cohort: chest-X-ray phantoms with known truth. See ``docs/phantoms.md``."""

from meddiff.phantoms.cohort import PhantomCohort
from meddiff.phantoms.options import PhantomOptions

__all__ = ["PhantomCohort", "PhantomOptions"]
