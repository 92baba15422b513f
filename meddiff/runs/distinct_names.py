"""What runs are called beside each other. Source: own."""

from collections.abc import Sequence

from meddiff.runs.folder import Run


def distinct_names(runs: Sequence[Run]) -> None:
    """Give runs of one name others: by what a sweep varies where that tells them apart, else by their folder's (a time).

    ``learnable, label, seed 2`` says more to a reader than ``quickstart 0018-7ca31ebc``. What is still equal is numbered.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    for name, alike in groups.items():
        if len(alike) == 1:
            continue
        told = differing(alike)
        for run, text in zip(alike, told, strict=True):
            folder = f"{name} {run.path.resolve().name}"
            known = all(told) and len(set(told)) == len(told)
            run.name = folder if not known else text if len(alike) == len(runs) else f"{name}: {text}"
    found = [run.name for run in runs]
    for position, run in enumerate(runs):
        if found.count(run.name) > 1:
            run.name = f"{run.name} ({found[: position + 1].count(found[position])})"


def differing(runs: Sequence[Run]) -> list[str]:
    """Text encoder, prompt and seed of each run, as far as they differ among them."""
    settings = [(run.facts.encoder, run.facts.prompt, f"seed {run.facts.seed}") for run in runs]
    places = [place for place in range(3) if len({one[place] for one in settings}) > 1]
    return [", ".join(filter(None, (one[place] for place in places))) for one in settings]
