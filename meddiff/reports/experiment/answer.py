"""The first five lines of an experiment's page, no surer than its claims are. Source: own."""

from collections.abc import Callable, Sequence

from meddiff.reports.experiment.between import Between, between, sides
from meddiff.reports.experiment.claims import AT_EQUAL, CNR, DISTANCE, SEEDS_OF_A_CLAIM, Arm, Claim
from meddiff.reports.experiment.tables import ClaimTable, Design, amount, chance, interval, named, settings

NOTHING = (
    "No run has been collected yet, so nothing is claimed here: the commands below make rows, and the rows this page."
)
#: Where meaning may have gone, or shows to be gone.
THROUGH = (
    "controls/gain",
    "grounding/eos_macro_cnr",
    "controls/pairs/first",
    "controls/pairs/moved",
    "grounding/confounder_cnr",
    "mechanism/attention/padding",
    "mechanism/cnr/finding/finding",
    "mechanism/cnr/end/finding",
    "mechanism/probe/denied/finding",
    "mechanism/probe/side/finding",
)


def answer(found: Sequence[ClaimTable], design: Design) -> str:
    """Does it cost grounding, when not, at what gain, through what, and what of it holds; a line each.

    One line, which claims nothing, where no setting has the seeds of a claim.
    """
    by_name = {table.name: table.claims for table in found}
    main, beside = by_name.get("main", []), by_name.get("beside", []) + by_name.get("mechanism", [])
    shown = [one for one in main if one.figure == CNR]
    if not shown:
        return NOTHING
    called = settings(main, design)
    cnr, few = [one for one in shown if one.counts], [one for one in shown if not one.counts]
    if not cnr:
        return (
            f"Nothing is claimed yet: no setting has {SEEDS_OF_A_CLAIM} seeds of both encoders. {_too_few(few, called)}"
        )
    costs = [one for one in cnr if one.holds and one.difference.mean < 0]
    others = [one for one in cnr if one not in costs]
    where = {one.arm for one in costs} or {one.arm for one in cnr}
    lines = [
        f"**Does making the text encoder learnable cost grounding?** In {len(costs)} of {_settings(len(cnr))}"
        + (f" macro CNR falls: {_listed(costs, called)}." if costs else " it is told from chance."),
        f"**When not?** {_others(others, called, few)}{_depends(between(main), design)}",
        f"**At what gain?** {_gain(main, where, called)}",
        f"**Through what?** {_through(beside, where, called)}",
        f"**What holds?** {_holds(main, called)}",
    ]
    return "\n\n".join(lines)


def _settings(n: int) -> str:
    return f"{n} setting{'s' if n != 1 else ''}"


def _listed(some: Sequence[Claim], called: Callable[[Arm], str], name: bool = False) -> str:
    """Each with its interval and setting."""
    return "; ".join(
        f"{named(one.figure) + ' ' if name else ''}{interval(one.difference, one.figure, sign=True)} from "
        f"{interval(one.frozen, one.figure)} ({called(one.arm)}; p {chance(one.p_holm)})"
        for one in some
    )


def _others(others: Sequence[Claim], called: Callable[[Arm], str], few: Sequence[Claim]) -> str:
    better = [one for one in others if one.holds]
    unclear = [one for one in others if not one.holds]
    parts = [] if others or few else ["It does in every setting that was tried."]
    parts += [f"Words point better: {_listed(better, called)}."] if better else []
    parts += [f"No difference is told from chance: {_listed(unclear, called)}."] if unclear else []
    parts += [_too_few(few, called)] if few else []
    return " ".join(parts)


def _too_few(few: Sequence[Claim], called: Callable[[Arm], str]) -> str:
    """Means alone, and of how many seeds they are."""
    listed = "; ".join(
        f"{amount(one.difference.mean, one.figure, sign=True)} from {amount(one.frozen.mean, one.figure)} "
        f"({called(one.arm)}; {one.difference.seeds} seed{'s' if one.difference.seeds != 1 else ''})"
        for one in few
    )
    return f"On too few seeds for a claim macro CNR differs by {listed}."


def _depends(found: Sequence[Between], design: Design) -> str:
    """By what the cost in CNR is told to change; nothing where a single setting was tried."""
    some = [one for one in found if one.figure == CNR]
    told = [one for one in some if one.holds]
    if not some:
        return ""
    if not told:
        return " That it depends on length, base or weights is not told from chance."
    listed = "; ".join(
        f"{interval(one.difference, CNR, sign=True)} from {first} to {second} ({both})"
        for one in told
        for first, second, both in [sides(one, design)]
    )
    return f" The difference changes by {listed}."


def _gain(main: Sequence[Claim], where: set[Arm], called: Callable[[Arm], str]) -> str:
    some = [one for one in main if one.arm in where]
    distances = [one for one in some if one.figure == DISTANCE]
    equal = [one for one in some if one.figure == AT_EQUAL and not one.note]
    apart = [one for one in some if one.figure == AT_EQUAL and one.note]
    parts = [f"Frechet distance (less is better) {_listed(distances, called)}."] if distances else []
    parts += [f"At equal distance macro CNR differs by {_listed(equal, called)}."] if equal else []
    parts += [f"No common distance: {'; '.join(called(one.arm) for one in apart)}."] if apart else []
    return " ".join(parts) or "Frechet distances were not measured."


def _through(beside: Sequence[Claim], where: set[Arm], called: Callable[[Arm], str]) -> str:
    some = [one for one in beside if one.arm in where and one.figure in THROUGH]
    if not some:
        return "Not measured: `lightning evaluate controls` of the runs, and collect them again."
    told = [one for one in some if one.holds]
    rest = sorted({named(one.figure) for one in some} - {named(one.figure) for one in told})
    parts = [f"{_listed(told, called, name=True)}."] if told else []
    parts += [f"Not told from chance in any of these settings: {', '.join(rest)}."] if rest else []
    return " ".join(parts)


def _holds(main: Sequence[Claim], called: Callable[[Arm], str]) -> str:
    """How many claims hold after correction, and which of them not every seed agrees with."""
    known = [one for one in main if one.counts]
    held = [one for one in known if one.holds]
    seeds = sorted({one.difference.seeds for one in known})
    of = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    text = f"{len(held)} of {len(known)} claims at 5 %, corrected over all of them (Holm), over {of} seeds and their images."
    split = [one for one in held if one.difference.alike < one.difference.seeds]
    if held and not split:
        text += " In each of these every seed has the same sign."
    if split:
        text += f" Not every seed agrees: {_listed(split, called, name=True)}."
    if not held:
        text += " Nothing here is a result yet."
    return text
