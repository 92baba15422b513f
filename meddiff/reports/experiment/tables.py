"""The tables of an experiment out of its claims, as Markdown and as rows; each is corrected by itself. Source: own."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from meddiff.common.outside import markdown_cell
from meddiff.metrics.over_seeds import OverSeeds
from meddiff.reports.experiment.claims import ARM, AT_EQUAL, CNR, DISTANCE, Arm, Claim, corrected
from meddiff.reports.experiment.measured import MECHANISM, TRUST, TRUST_CONTROLS
from meddiff.reports.experiment.rows import Collected
from meddiff.reports.page.wording import MINUS, label
from meddiff.runs.values import number

#: What the claims rest on, and what stands beside them.
MAIN = (DISTANCE, CNR, AT_EQUAL)
BESIDE = (
    "controls/gain",
    "grounding/macro_auroc",
    "grounding/macro_top1",
    "grounding/eos_macro_cnr",
    "controls/pairs/first",
    "controls/pairs/moved",
    "controls/absent_finding/macro_cnr",
    "grounding/confounder_cnr",
)
FIGURES = (*MAIN, *BESIDE, *MECHANISM, *TRUST)
#: Of each setting of a single factor.
OF_A_FACTOR = (*MAIN, "controls/gain", "grounding/eos_macro_cnr", "controls/pairs/first", "controls/pairs/moved")
#: What `lightning evaluate controls` measures, and what else has no name in the report.
NAMES = {
    AT_EQUAL: "macro CNR at equal distance",
    DISTANCE: "Frechet distance",
    "controls/gain": "grounding gain",
    "controls/pairs/first": "own finding first",
    "controls/pairs/moved": "map moves with the finding",
    "controls/absent_finding/macro_cnr": "macro CNR, absent finding asked",
    **TRUST,
}
#: What a value of a setting is called where it stands alone.
SAID: dict[str, Callable[[str], str]] = {
    "train_images": lambda value: f"{int(value):,} images" if value.isdecimal() else value,
    "weights": lambda value: f"{value} weights",
    "prompt": lambda value: f"trained on {value}s" if value == "impression" else f"trained on {value} texts",
    "confounders": lambda value: f"confounders {value}",
    "rate": lambda value: f"rate {value}",
    "protocol": lambda value: f"protocol {value}",
}


@dataclass(frozen=True)
class Design:
    """Which settings the claims are about.

    Attributes:
        reference: the setting from which one factor at a time is varied.
        bases: of the main table: name of a base -> what it is called.
        other_bases: the same of those that are varied alone.
    """

    reference: Mapping[str, str] = field(
        default_factory=lambda: {
            "train_images": "32000",
            "base": "phantom_base",
            "weights": "min-SNR 5",
            "prompt": "impression",
            "confounders": "0.7",
        }
    )
    bases: Mapping[str, str] = field(
        default_factory=lambda: {
            "phantom_base": "tower knows the language",
            "phantom_base_unread": "tower does not",
        }
    )
    other_bases: Mapping[str, str] = field(
        default_factory=lambda: {"phantom_base_30": "tower has read 30 impressions of chests"}
    )

    def differs(self, arm: Arm) -> set[str]:
        """In what a setting is not the reference: frozen, or learnable at the U-Net's rate."""
        other = {name for name, value in self.reference.items() if arm.of(name) != value}
        return other | (set() if arm.follows or not arm.rate else {"rate"})


@dataclass(frozen=True)
class ClaimTable:
    """One table.

    Attributes:
        name: of its file and heading.
        title: above it.
        claims: corrected together.
    """

    name: str
    title: str
    claims: list[Claim]


#: A factor that is varied alone -> the table's title.
FACTORS = {
    "rate": "The text encoder's learning rate",
    "prompt": "How much the words vary",
    "confounders": "How strongly confounders go with findings in training",
    "base": "How much language the tower had read",
}


def tables(found: Sequence[Claim], design: Design) -> list[ClaimTable]:
    """Those that have claims: the main one, what stands beside it, and one a factor that takes two values or more."""
    inner = [
        one
        for one in found
        if design.differs(one.arm) <= {"train_images", "weights", "base"} and one.arm.of("base") in design.bases
    ]
    result = [
        ClaimTable("main", "What learning the text encoder changes", [one for one in inner if one.figure in MAIN]),
        ClaimTable("beside", "Other figures of the same runs", [one for one in inner if one.figure in BESIDE]),
        ClaimTable("mechanism", "Where meaning goes", [one for one in inner if one.figure in MECHANISM]),
        ClaimTable(
            "trust", "What is asked before a generator is trusted", [one for one in inner if one.figure in TRUST]
        ),
    ]
    for factor, title in FACTORS.items():
        some = [one for one in found if design.differs(one.arm) <= {factor} and one.figure in OF_A_FACTOR]
        if len({(one.arm.setting, one.arm.rate) for one in some}) > 1:
            result.append(ClaimTable(factor, title, some))
    return [ClaimTable(one.name, one.title, corrected(one.claims)) for one in result if one.claims]


def settings(claims: Sequence[Claim], design: Design) -> Callable[[Arm], str]:
    """What arms are called among others: what differs between them."""
    arms = {one.arm for one in claims}
    varied = [name for name in ARM if len({arm.of(name) for arm in arms}) > 1] or ["train_images"]
    rates = len({arm.rate for arm in arms}) > 1

    def called(arm: Arm) -> str:
        parts = [said(name, arm.of(name), design) for name in varied]
        parts += [said("rate", arm.of("rate"), design) + (" (the U-Net's)" if arm.follows else "")] if rates else []
        return ", ".join(parts)

    return called


def said(name: str, value: str, design: Design) -> str:
    """What one value of a setting is called in a cell of a table.

    Example:
        >>> said("weights", "uniform", Design()), said("base", "phantom_base", Design())
        ('uniform weights', 'tower knows the language')
    """
    bases = {**design.other_bases, **design.bases}
    return markdown_cell(bases.get(value, value) if name == "base" else SAID.get(name, str)(value))


def named(figure: str) -> str:
    """What a figure is called.

    Example:
        >>> named("grounding/eos_macro_cnr"), named("controls/pairs/first")
        ('macro CNR of the end token', 'own finding first')
    """
    return NAMES.get(figure) or label(figure)


def amount(value: float, figure: str, sign: bool = False) -> str:
    """As printed: distances with one decimal, all else with two; a dash where there is none.

    Example:
        >>> amount(-1.234, "grounding/macro_cnr"), amount(12.34, "fidelity/fd_domain"), amount(float("nan"), "")
        ('−1.23', '12.3', '–')
    """
    if not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if sign else ''}.{1 if figure == DISTANCE else 2}f}"
    return text.replace("-", MINUS)


def interval(found: OverSeeds, figure: str, sign: bool = False) -> str:
    """``0.42 [0.31, 0.53]``; without brackets where there is no interval."""
    text = amount(found.mean, figure, sign)
    if not math.isfinite(found.low):
        return text
    return f"{text} [{amount(found.low, figure)}, {amount(found.high, figure)}]"


def chance(p: float) -> str:
    """A p to print.

    Example:
        >>> chance(0.0421), chance(0.00001), chance(float("nan"))
        ('0.042', '< 0.001', '–')
    """
    if not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown(table: ClaimTable, design: Design) -> str:
    """The table with its heading and what its columns mean."""
    called = settings(table.claims, design)
    lines = [f"### {table.title}", ""]
    lines += ["| setting | figure | frozen | learnable | learnable − frozen | p | p, Holm | seeds | of one sign |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for one in table.claims:
        gap, figure = one.difference, one.figure
        at = f" ({amount(one.distance, DISTANCE)})" if math.isfinite(one.distance) else ""
        cells = [called(one.arm), named(figure) + at]
        if one.note:
            cells += [one.note, *[""] * 6]
        else:
            bold = "**" if one.holds else ""
            cells += [amount(one.frozen.mean, figure), amount(one.learnable.mean, figure)]
            cells += [f"{bold}{interval(gap, figure, sign=True)}{bold}", chance(gap.p), chance(one.p_holm)]
            cells += [str(gap.seeds), f"{gap.alike}; p {chance(gap.p_seeds)}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def trust_controls(table: ClaimTable, collected: Collected, design: Design) -> str:
    """What figures of trust stand beside, least and greatest over the runs of the table; "" where none has any."""
    lengths = {one.arm.of("train_images") for one in table.claims}
    runs = [
        row
        for (_, images), row in collected.runs.items()
        if str(images) == row.get("train_images") in lengths and row.get("base") in design.bases
    ]
    lines = []
    for name, (figure, control) in TRUST_CONTROLS.items():
        values = [value for row in runs if (value := number(row.get(name))) is not None]
        if values:
            ends = [amount(one, figure) for one in (min(values), max(values))]
            lines.append(f"| {named(figure)} | {control} | {' to '.join(dict.fromkeys(ends))} | {len(values)} |")
    return "\n".join(["| control of | | least to greatest | runs |", "|---|---|---|---|", *lines]) if lines else ""


#: Columns of the table of claims.
COLUMNS = (
    "table",
    *ARM,
    "rate",
    "figure",
    "frozen",
    "frozen_low",
    "frozen_high",
    "learnable",
    "learnable_low",
    "learnable_high",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "p_seeds",
    "seeds",
    "alike",
    "samples",
    "distance",
    "note",
)


def rows(found: Sequence[ClaimTable]) -> list[dict[str, object]]:
    """All claims, :data:`COLUMNS`."""
    result: list[dict[str, object]] = []
    for table in found:
        for one in table.claims:
            row: dict[str, object] = {"table": table.name, **dict(zip(ARM, one.arm.setting, strict=True))}
            row |= {"rate": one.arm.rate, "figure": one.figure, "p_holm": one.p_holm, "samples": one.samples}
            for name, part in (("frozen", one.frozen), ("learnable", one.learnable)):
                row |= {name: part.mean, f"{name}_low": part.low, f"{name}_high": part.high}
            gap = one.difference
            row |= {"difference": gap.mean, "low": gap.low, "high": gap.high, "p": gap.p, "p_seeds": gap.p_seeds}
            row |= {"seeds": gap.seeds, "alike": gap.alike, "distance": one.distance, "note": one.note}
            result.append(row)
    return result
