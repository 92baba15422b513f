"""The plane of both figures, a panel a setting, one path an encoder: means over seeds with 95 % intervals, and dashed
where they are too few for a claim. Source: own.
"""

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import numpy as np

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.metrics.over_seeds import over_seeds
from meddiff.reports.experiment.claims import CNR, DISTANCE, SEEDS_OF_A_CLAIM, Arm, arms
from meddiff.reports.experiment.rows import Collected
from meddiff.reports.experiment.tables import Design, said
from meddiff.reports.page.charts import LIGHT
from meddiff.reports.page.figures import VERSION
from meddiff.runs.values import number

Point = dict[str, str | float | int | None]
#: Where a panel's name goes on in the next line.
LINE = "; "


def points(collected: Collected, design: Design) -> list[Point]:
    """One a setting, encoder and number of images: means over seeds and, where there are three or more, their intervals.

    In the order of the panels.
    """
    found, by_arm = [], arms(collected)
    shown = [
        arm
        for arm in by_arm
        if design.differs(arm) <= {"train_images", "weights", "base"} and arm.of("base") in design.bases
    ]
    for arm in sorted(shown, key=lambda one: _place(one, design)):
        runs, encoder = by_arm[arm], "learnable" if arm.rate else "frozen"
        length, weights, base = (said(name, arm.of(name), design) for name in ("train_images", "weights", "base"))
        for images in sorted({images for run, images in collected.runs if run in runs.values()}):
            some = [row for run in runs.values() if (row := collected.runs.get((run, images))) is not None]
            both = [(number(row.get(DISTANCE)), number(row.get(CNR))) for row in some]
            known = np.array([pair for pair in both if None not in pair], dtype=float).reshape(-1, 2)
            if not len(known):
                continue
            point: Point = {"encoder": encoder, "images": images, "seeds": len(known)}
            point["panel"] = f"{length}, {weights}{LINE}{base}"
            for name, values in (("distance", known[:, 0]), ("cnr", known[:, 1])):
                one = over_seeds(values)
                ends = (one.low, one.high) if np.isfinite(one.low) else (None, None)
                point |= {name: one.mean, f"{name}_low": ends[0], f"{name}_high": ends[1]}
            found.append(point)
    return found


def _place(arm: Arm, design: Design) -> tuple[int, int, bool, str]:
    """Where a setting's panel stands: shorter trainings, earlier bases and the reference's weights first."""
    weights = arm.of("weights")
    base = list(design.bases).index(arm.of("base"))
    return int(arm.of("train_images")), base, weights != design.reference["weights"], weights


def chart(found: Sequence[Point]) -> alt.FacetChart:
    """A panel a setting, in the order in which points come."""
    x, y = "Frechet distance; better images →", "macro CNR; better grounding →"
    # on a log scale: the start is four times as far away as what is compared
    across = alt.X("distance:Q", title=x, scale=alt.Scale(type="log", reverse=True, nice=False, padding=12))
    up = alt.Y("cnr:Q", title=y, scale=alt.Scale(zero=False, padding=8))
    scale = alt.Scale(domain=["frozen", "learnable"], range=[LIGHT["frozen"], LIGHT["learnable"]])
    colour = alt.Color("encoder:N", title="text encoder", scale=scale, legend=alt.Legend(orient="top"))
    base = alt.Chart().encode(x=across, y=up, color=colour)
    bars = base.mark_rule(strokeWidth=1.2, opacity=0.5)
    line, enough = base.encode(detail="encoder:N", order="images:Q"), f"datum.seeds >= {SEEDS_OF_A_CLAIM}"
    layers = [
        bars.transform_filter("isValid(datum.cnr_low)").encode(y=alt.Y("cnr_low:Q", title=y), y2="cnr_high"),
        bars.transform_filter("isValid(datum.distance_low) && datum.distance_low > 0").encode(
            x=alt.X("distance_low:Q", title=x), x2="distance_high"
        ),
        line.transform_filter(enough).mark_line(strokeWidth=2.5),
        line.transform_filter(f"!({enough})").mark_line(strokeWidth=1.5, strokeDash=[4, 3]),
        base.mark_point(filled=True, size=55, opacity=1),
        base.transform_filter("datum.images == 0")
        .mark_point(filled=True, size=16, opacity=1)
        .encode(color=alt.value(LIGHT["card"])),
    ]
    panels = [str(point["panel"]) for point in found]
    header = alt.Header(title=None, labelExpr=f"split(datum.label, '{LINE}')", labelFontWeight="bold")
    # One field and no grid of rows and columns: a grid with an empty cell puts the others below wrong names.
    return (
        alt.layer(*layers, data=alt.Data(values=list(found)))
        .properties(width=250, height=230)
        .facet(facet=alt.Facet("panel:N", header=header, sort=list(dict.fromkeys(panels))), columns=4)
        .configure(font="Liberation Sans, Arial, sans-serif", background=LIGHT["card"])
    )


def draw(collected: Collected, design: Design, target: Path) -> Path | None:
    """Write the picture as SVG; None where there is nothing to draw.

    Raises:
        UserError: vl-convert is not installed.
    """
    found = points(collected, design)
    if not found:
        return None
    write_chart(chart(found), target)
    return target


def write_chart(drawn: alt.TopLevelMixin, target: Path) -> None:
    """Write a chart as SVG.

    Raises:
        UserError: vl-convert is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise UserError("Figures need vl-convert: pip install 'meddiff-tradeoff[export]'.") from error
    svg = vl_convert.vegalite_to_svg(drawn.to_dict(), vl_version=VERSION)
    with atomic_open(target, "w") as stream:
        stream.write(svg + "\n")
