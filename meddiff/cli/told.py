"""What ``lightning evaluate`` says of a part: its price before, its figures after. Source: own."""

from collections.abc import Callable, Sequence

from jsonargparse import Namespace

from meddiff.cli.controls import controls_text
from meddiff.cli.mechanism import mechanism_text
from meddiff.cli.prototypes import prototypes_text, shortcut_text
from meddiff.cli.rivals import rivals_text
from meddiff.common.progress import doing
from meddiff.evaluation.explained import seconds_of_evaluation
from meddiff.evaluation.measurement import Measurement, Result
from meddiff.evaluation.utility import Utility
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset


def tell_cost(part: str, measurement: Measurement, model: LatentDiffusion, split: LatentShardsDataset) -> None:
    """Say what it will take, before it is paid."""
    with doing(f"{part}: timing a pass of this machine", stays=False):
        evaluations = measurement.cost(model, split)
        seconds = evaluations * seconds_of_evaluation(model)
        training = ""
        if isinstance(measurement, Utility):
            more = measurement.seconds(model.device)
            seconds += more
            training = (
                f" and {measurement.steps():,} steps of {len(measurement.units())} classifiers (about {more:,.0f} s)"
            )
    print(
        f"{part}: at most {evaluations:,.0f} U-Net evaluations{training}, about {seconds:,.0f} s on this machine",
        flush=True,
    )


def without_utility(
    parts: Sequence[str], options: Namespace, split: Callable[[str], LatentShardsDataset | None]
) -> tuple[str, ...]:
    """``parts`` of ``evaluate all`` without utility where the cohort has no images to choose by, or too few to score on."""
    if "utility" not in parts:
        return tuple(parts)
    chosen = options["utility"]
    test = split(chosen.split)
    enough = test is not None and bool(Utility(chosen).counted(test))
    if enough and split(chosen.validation) is not None:
        return tuple(parts)
    lack = (
        f"split {chosen.validation!r} to choose by"
        if enough
        else f"finding with and without which {chosen.fewest} images of {chosen.split!r} are"
    )
    print(f"utility is left out: there is no {lack}", flush=True)
    return tuple(part for part in parts if part != "utility")


def show(part: str, result: Result) -> None:
    """The figures that have no class or sample in their names; of controls and of the mechanism, a table."""
    short = {key: value for key, value in result.figures.items() if "/" not in key}
    if short:
        print(f"{part}: " + "  ".join(f"{key} {value:.4g}" for key, value in short.items()))
    if part == "controls":
        print(controls_text(result))
    if part == "mechanism":
        print(mechanism_text(result))
    if part == "rivals":
        print(rivals_text(result))
    if part == "prototypes":
        print(prototypes_text(result))
    if part == "shortcut":
        print(shortcut_text(result))
