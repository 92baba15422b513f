"""What tests of cohort readers share: rejected items by rule, and where real data lie (beside the checkout, not in it)."""

from pathlib import Path

from meddiff.preparation.records import Reading

SHARED = Path(__file__).parents[3] / "shared" / "data"


def rules(reading: Reading) -> dict[str, list[str]]:
    """Rule -> the items it took, in the order of ``rejected.csv``."""
    out: dict[str, list[str]] = {}
    for one in reading.rejected:
        out.setdefault(one.rule, []).append(one.item)
    return out
