"""The charts, as Vega-Lite over named tables: one function a chart, no rows in it, the same for page, W&B and print.

Rows come from :mod:`meddiff.reports.page.tables` under the names of columns that a chart asks for; ``distance``, ``cnr`` and
``value`` stand for the figure that is looked at. Interaction is by parameters that mean "everything" when nobody sets them:
``shown`` (null or a list of runs), ``until`` (null or a number of images), ``lo`` and ``hi`` (what is brushed elsewhere),
``quiet`` (whether means over seeds are drawn, and single runs step back), ``named`` (what stands at points: "run", "images").
Colour is the text encoder, shape the prompt, a path the run. Source: own; rules: spec/sweeps_dashboard.md 1.3.
"""

import json
import re
from collections.abc import Mapping
from functools import cache

import altair as alt

Spec = dict[str, object]
#: the page's colours, and what stands for them where there is no style sheet (print, W&B)
LIGHT = {
    "frozen": "#0b6fb8",
    "learnable": "#d1580b",
    "other": "#6b7683",
    "ink": "#16202c",
    "soft": "#556372",
    "card": "#ffffff",
    "grid": "#e8ecf0",
    "axis": "#9aa6b2",
}
ENCODERS = ("frozen", "learnable", "other")
PROMPTS = ("impression", "synthetic", "label", "mixed")
SHAPES = ("circle", "square", "triangle-up", "diamond")
TEXT = {"labelColor": "var(--soft)", "titleColor": "var(--ink)", "labelFontSize": 12, "titleFontSize": 12}
CONFIG = {
    "background": "transparent",
    "font": "Liberation Sans, system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif",
    "view": {"stroke": None},
    "mark": {"aria": False},  # thousands of marks read aloud help nobody
    "axis": TEXT
    | {"gridColor": "var(--grid)", "domainColor": "var(--axis)", "tickColor": "var(--axis)", "titleFontWeight": 500}
    | {"titlePadding": 8, "tickCount": 6, "labelOverlap": True},
    "axisX": {"grid": False},
    "legend": TEXT | {"titleFontWeight": 500, "symbolSize": 90, "padding": 0, "offset": 10},
    "text": {"color": "var(--soft)", "fontSize": 11.5},
}
#: charts of rows -> what a row is
DOTS = {"class": "finding", "word": "word", "prompt": "captions"}
FADED = 0.05
SHOWN = (
    "(shown == null || indexof(shown, datum.run) >= 0) && (lo == null || (datum.images >= lo && datum.images <= hi))"
)
NAMED = "named == 'images' || (named == 'run' && datum.images == datum.last && shown == null)"
UNTIL = "until == null || datum.images <= until"


def _title(name: str) -> str:
    """Where the name of a figure will stand: :func:`titled` fills it in here, W&B there."""
    return f"${{string:{name}}}"


def _params(brush: bool = False, zoom: bool = True) -> list[alt.Parameter]:
    found = [alt.param(name=name, value=None) for name in ("shown", "until", "lo", "hi")]
    found += [alt.param(name="quiet", value=False), alt.param(name="named", value="")]
    drag = "[pointerdown[{}event.shiftKey], window:pointerup] > window:pointermove!"
    if brush:
        found.append(alt.selection_interval(name="brush", encodings=["x"], on=drag.format("!"), zoom=False))
    if zoom:
        with_ctrl = "wheel![event.ctrlKey]"
        found.append(alt.selection_interval(name="zoom", bind="scales", zoom=with_ctrl, translate=drag.format("")))
    return found


def _colour(small: bool = False) -> alt.Color:
    """Two hues for the two encoders, told apart with any colour vision; grey for what is neither."""
    scale = alt.Scale(domain=list(ENCODERS), range=[f"var(--{name})" for name in ENCODERS])
    stroke = alt.Legend(orient="top", values=ENCODERS[:2], symbolType="stroke", symbolStrokeWidth=4, symbolOpacity=1)
    return alt.Color("encoder:N", title=None if small else "text encoder", scale=scale, legend=stroke)


def _shape(small: bool = False) -> alt.Shape:
    scale = alt.Scale(domain=list(PROMPTS), range=list(SHAPES))
    legend = alt.Legend(orient="top", values=PROMPTS[:3], symbolFillColor="var(--soft)", symbolOpacity=1)
    return alt.Shape("prompt:N", title="prompt", scale=scale, legend=None if small else legend)


def _tips(
    *numbers: tuple[str, str, str], names: tuple[str, ...] = ("run", "text encoder:encoder", "prompt")
) -> list[alt.Tooltip]:
    """Names (``TITLE:FIELD``, or a field that is its own title), then numbers (field, title, format)."""
    first = [alt.Tooltip(f"{name.split(':')[-1]}:N", title=name.split(":")[0]) for name in names]
    return first + [alt.Tooltip(f"{name}:Q", title=title, format=form) for name, title, form in numbers]


def _finished(layers: list[alt.Chart], text: str, params: list[alt.Parameter], height: int) -> Spec:
    chart = alt.layer(*layers).add_params(*params).properties(width="container", height=height, description=text)
    spec: Spec = chart.to_dict(validate=False)
    del spec["$schema"]  # an address in a page that has none
    return spec | {"config": CONFIG, "autosize": {"type": "fit-x", "contains": "padding"}}


def _if(test: str, value: float | alt.ExprRef, otherwise: float = 0) -> alt.OpacityValue:
    return alt.OpacityValue(otherwise, condition={"test": test, "value": value})


def _of_all(full: float) -> alt.OpacityValue:
    """Of what speaks of all runs: gone once some are hidden."""
    return _if("shown == null", full)


def _layers(
    across: alt.X,
    up: alt.Y,
    tips: list[alt.Tooltip],
    known: str,
    small: bool,
    tables: tuple[str, str] = ("evaluations", "means"),
) -> tuple[alt.Chart, alt.Chart]:
    """What every path of a run, and every mean over seeds, is drawn from."""
    runs, means = (
        alt.Chart(alt.NamedData(name))
        .transform_filter(known)
        .transform_filter(UNTIL)
        .encode(x=across, y=up, tooltip=tips)
        for name in tables
    )
    faint = _if(SHOWN, alt.expr("quiet ? 0.28 : 0.9"), FADED)
    return runs.encode(color=_colour(small), opacity=faint), means.encode(color=_colour(small), opacity=_of_all(1))


@cache
def tradeoff() -> Spec:
    """Grounding (``cnr``) upwards against image quality (``distance``) to the right, a path a run from its hollow start."""
    x, y = _title("distance"), _title("cnr")
    right, upwards = f"{x}; better images →", f"{y}; better grounding →"
    across = alt.X("distance:Q", title=right, scale=alt.Scale(reverse=True, zero=False, nice=False, padding=24))
    up = alt.Y("cnr:Q", title=upwards, scale=alt.Scale(zero=False, padding=12))
    known = "isValid(datum.distance) && isValid(datum.cnr)"
    tips = _tips(("images", "training images", ",d"), ("distance", x, ",.4~r"), ("cnr", y, ".3f"))
    runs, mean = _layers(across, up, tips, known, small=False)
    rows = (
        alt.Chart(alt.NamedData("evaluations")).transform_filter(known).transform_filter(UNTIL).encode(x=across, y=up)
    )
    order: list[alt.SortField | dict[str, str]] = [alt.SortField("distance"), alt.SortField("cnr", "descending")]
    front = (
        rows.transform_filter("shown == null || indexof(shown, datum.run) >= 0")
        .transform_window(best="max(cnr)", sort=order, frame=[None, 0])
        .transform_filter("datum.cnr >= datum.best")
        .mark_line(interpolate="step-after", strokeDash=[2, 3], strokeWidth=1.5, color="var(--axis)")
        .encode(order="distance:Q")
    )
    names = (
        rows.transform_joinaggregate(last="max(images)", groupby=["run"])
        .transform_calculate(said="named == 'images' ? format(datum.images, '~s') : datum.run")
        .mark_text(align="right", dx=-8, dy=-10, fontWeight=600)
        .encode(text="said:N", color=_colour(), opacity=_if(NAMED, 1))
    )
    printed = alt.Chart(alt.NamedData("published")).transform_filter(known).encode(x=across, y=up, color=_colour())
    bars = mean.mark_rule(strokeWidth=1.2).encode(opacity=_of_all(0.5))
    layers = [
        front,
        *_references(across, up, "distance", "cnr"),
        bars.encode(x=alt.X("distance_low:Q", title=right), x2="distance_high"),
        bars.encode(y=alt.Y("cnr_low:Q", title=upwards), y2="cnr_high"),
        runs.mark_line(strokeWidth=1.6).encode(detail="run:N", order="images:Q"),
        runs.mark_point(filled=True, size=46).encode(shape=_shape()),
        rows.transform_filter("datum.images == 0").mark_point(filled=True, size=14, color="var(--card)"),
        mean.mark_line(strokeWidth=3).encode(detail="kind:N", order="images:Q"),
        mean.mark_point(filled=True, size=95).encode(shape=_shape()),
        names,
        printed.mark_point(shape="cross", size=110, strokeWidth=2),
        printed.mark_text(align="left", dx=9, fontStyle="italic").encode(text="run:N"),
    ]
    return _finished(layers, f"{y} against {x}, one path a run from the first evaluation on", _params(), 440)


def _references(across: alt.X, up: alt.Y, x: str, y: str) -> list[alt.Chart]:
    """Dashed lines for what needs no training: the location prior across, real against real upright."""
    found = []
    for name, place in ((y, {"y": up}), (x, {"x": across})):
        drawn = alt.Chart(alt.NamedData("references")).transform_filter(f"isValid(datum.{name})").encode(**place)
        found.append(drawn.mark_rule(strokeDash=[5, 4], color="var(--soft)"))
        text = (
            drawn.mark_text(align="left", dx=4, dy=-6)
            if name == y
            else drawn.mark_text(align="right", angle=270, dx=-4, dy=-6)
        )
        found.append(text.encode(text="label:N", **{"x" if name == y else "y": alt.value(0)}))
    return found if x else found[:2]


@cache
def curve(rows: str = "evaluations", means: str = "means") -> Spec:
    """One figure (``value``) against training images; dragging over it marks the same stretch in the other charts.

    Args:
        rows, means: names of the tables that have it.
    """
    y = _title("value")
    across = alt.X("images:Q", title="training images", axis=alt.Axis(format="~s"))
    up = alt.Y("value:Q", title=y, scale=alt.Scale(zero=False, padding=8))
    tips = _tips(("images", "training images", ",d"), ("value", y, ",.4~r"))
    runs, mean = _layers(across, up, tips, "isValid(datum.value)", small=True, tables=(rows, means))
    band = mean.mark_area().encode(y=alt.Y("value_low:Q", title=y), y2="value_high", opacity=_of_all(0.16))
    layers = [
        runs.mark_line(strokeWidth=1.6).encode(detail="run:N"),
        *_references(across, up, "", "value"),
        band.encode(detail="kind:N"),
        runs.mark_point(filled=True, size=30).encode(shape=_shape(small=True)),
        mean.mark_line(strokeWidth=3).encode(detail="kind:N"),
    ]
    return _finished(layers, f"{y} against training images, one line a run", _params(brush=True), 230)


@cache
def timesteps() -> Spec:
    """One figure (``value``) of each run's newest checkpoint against the timestep of the noise."""
    y = _title("value")
    rows = (
        alt.Chart(alt.NamedData("mechanism_timesteps")).transform_filter("isValid(datum.value)").transform_filter(UNTIL)
    )
    line = rows.encode(
        x=alt.X("timestep:Q", title="timestep, from little noise to much; newest checkpoint"),
        y=alt.Y("value:Q", title=y, scale=alt.Scale(zero=False, padding=8)),
        color=_colour(small=True),
        detail="run:N",
        opacity=_if(SHOWN, 0.85, FADED),
        tooltip=_tips(("timestep", "timestep", "d"), ("value", y, ",.4~r")),
    )
    layers = [line.mark_line(strokeWidth=1.6), line.mark_point(filled=True, size=30)]
    return _finished(layers, f"{y} against the timestep, one line a run", _params(), 230)


@cache
def loss() -> Spec:
    """Training (full) and validation loss (dashed) against training images."""
    parts = alt.Scale(domain=["training", "validation"], range=[[1, 0], [5, 4]])
    rows = alt.Chart(alt.NamedData("loss")).transform_filter(UNTIL).mark_line(strokeWidth=1.4)
    line = rows.encode(
        x=alt.X("images:Q", title="training images", axis=alt.Axis(format="~s")),
        y=alt.Y("loss:Q", title="loss, log scale", scale=alt.Scale(type="log")),
        color=_colour(small=True),
        strokeDash=alt.StrokeDash("part:N", title=None, scale=parts, legend=alt.Legend(orient="top")),
        detail="run:N",
        opacity=_if(SHOWN, 0.85, FADED),
        tooltip=_tips(("images", "training images", ",d"), ("loss", "loss", ".4f")),
    )
    return _finished([line], "training and validation loss against training images", _params(), 230)


@cache
def dots(table: str, what: str, figure: str = "CNR", height: int = 320) -> Spec:
    """A dot for every kind of run in every row of ``what``, its interval as a line, the location prior as a tick.

    Args:
        table: name of the table, with columns ``what``, ``order``, ``cnr``, ``low``, ``high``, ``prior``, ``arm``.
        what: title of the rows.
        figure: title of the axis.
        height: in px; some 20 a row.
    """
    rows, title = alt.Chart(alt.NamedData(table)), f"{figure}; more is better →"
    place = alt.Y("what:N", title=what, sort=alt.EncodingSortField("order", op="min"), axis=alt.Axis(labelLimit=190))
    offset = alt.YOffset("arm:N", sort="ascending", scale=alt.Scale(paddingOuter=0.35))
    said = (("cnr", figure, ".3f"), ("low", "from", ".3f"), ("high", "to", ".3f"), ("prior", "location prior", ".3f"))
    tips = _tips(*said, ("n", "N phrases", ",d"), ("runs", "number of runs", ",d"), names=(f"{what}:what", "runs:arm"))
    base = rows.encode(y=place, yOffset=offset, color=_colour(), tooltip=tips)
    # What has no value is made invisible: left out, each layer had other rows, and the chart another order of rows.
    interval = base.mark_rule(strokeWidth=2, invalid=None).encode(x2="high", opacity=_if("isValid(datum.low)", 0.55))
    tick = base.mark_text(text="|", fontWeight="bold", fontSize=15, baseline="middle", invalid=None)
    point = base.mark_point(filled=True, size=75, opacity=1, invalid=None).encode(shape=_shape())
    layers = [
        rows.mark_rule(color="var(--axis)").encode(x=alt.XDatum(0, title=title)),
        interval.encode(x=alt.X("low:Q", title=title)),
        tick.encode(
            x=alt.X("prior:Q", title=title), color=alt.value("var(--ink)"), opacity=_if("isValid(datum.prior)", 1)
        ),
        point.encode(x=alt.X("cnr:Q", title=title, scale=alt.Scale(zero=True))),
    ]
    return _finished(layers, f"{figure} by {what}, with intervals and the location prior", _params(zoom=False), height)


def tables_of(spec: Spec) -> list[str]:
    """The names of the tables that a chart draws."""
    return list(dict.fromkeys(re.findall(r'"data": {"name": "(\w+)"}', json.dumps(spec))))


def titled(spec: Spec, titles: Mapping[str, str]) -> Spec:
    """The chart with words instead of the places for them, ``${string:NAME}``."""
    text = json.dumps(spec)
    for name, title in titles.items():
        text = text.replace(f"${{string:{name}}}", json.dumps(title)[1:-1])
    found: Spec = json.loads(text)
    return found
