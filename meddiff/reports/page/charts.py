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


def _params(zoom: bool = True, brush: bool = False) -> list[alt.Parameter]:
    found = [alt.param(name=name, value=None) for name in ("shown", "until", "lo", "hi")]
    found += [alt.param(name="quiet", value=False), alt.param(name="named", value="")]
    if brush:
        drag = "[pointerdown[!event.shiftKey], window:pointerup] > window:pointermove!"
        found.append(alt.selection_interval(name="brush", encodings=["x"], on=drag, zoom=False))
    if zoom:
        drag = "[pointerdown[event.shiftKey], window:pointerup] > window:pointermove!"
        found.append(alt.selection_interval(name="zoom", bind="scales", zoom="wheel![event.ctrlKey]", translate=drag))
    return found


def _colour(small: bool = False) -> alt.Color:
    """Two hues for the two encoders, told apart with any colour vision; grey for what is neither."""
    scale = alt.Scale(domain=list(ENCODERS), range=[f"var(--{name})" for name in ENCODERS])
    legend = alt.Legend(
        orient="top", values=list(ENCODERS[:2]), symbolType="stroke", symbolStrokeWidth=4, symbolOpacity=1
    )
    return alt.Color("encoder:N", title=None if small else "text encoder", scale=scale, legend=legend)


def _shape(small: bool = False) -> alt.Shape:
    scale = alt.Scale(domain=list(PROMPTS), range=list(SHAPES))
    legend = alt.Legend(orient="top", values=list(PROMPTS[:3]), symbolFillColor="var(--soft)", symbolOpacity=1)
    return alt.Shape("prompt:N", title="prompt", scale=scale, legend=None if small else legend)


def _whose(*fields: tuple[str, str, str]) -> list[alt.Tooltip]:
    """What every tooltip says first, then (field, title, format)."""
    names = [
        alt.Tooltip(f"{name}:N", title=title)
        for name, title in (("run", "run"), ("encoder", "text encoder"), ("prompt", "prompt"))
    ]
    return [*names, *(alt.Tooltip(f"{name}:Q", title=title, format=form) for name, title, form in fields)]


def _finished(layers: list[alt.Chart], height: int, text: str, params: list[alt.Parameter]) -> Spec:
    chart = alt.layer(*layers).add_params(*params).properties(width="container", height=height, description=text)
    spec: Spec = chart.to_dict(validate=False)
    del spec["$schema"]  # an address in a page that has none
    return spec | {"config": CONFIG, "autosize": {"type": "fit-x", "contains": "padding"}}


def _opacity(quiet: float, full: float) -> alt.OpacityValue:
    shown = {"test": SHOWN, "value": alt.expr(f"quiet ? {quiet} : {full}")}
    return alt.OpacityValue(FADED, condition=shown)


def _of_all(full: float) -> alt.OpacityValue:
    """Of what speaks of all runs: gone once some are hidden."""
    return alt.OpacityValue(alt.expr(f"shown == null ? {full} : 0"))


def _known(column: str, full: float) -> alt.OpacityValue:
    """Hides what has no value: filtering it out would give each layer other rows, and the rows of the chart another order."""
    return alt.OpacityValue(0, condition={"test": f"isValid(datum.{column})", "value": full})


@cache
def tradeoff(height: int = 440) -> Spec:
    """Grounding (``cnr``) upwards against image quality (``distance``) to the right, a path a run from its hollow start."""
    x, y = _title("distance"), _title("cnr")
    across = alt.X(
        "distance:Q", title=f"{x}; better images →", scale=alt.Scale(reverse=True, zero=False, nice=False, padding=24)
    )
    up = alt.Y("cnr:Q", title=f"{y}; better grounding →", scale=alt.Scale(zero=False, padding=12))
    known = "isValid(datum.distance) && isValid(datum.cnr)"
    tips = _whose(("images", "training images", ",d"), ("distance", x, ",.4~r"), ("cnr", y, ".3f"))
    rows = alt.Chart(alt.NamedData("evaluations")).transform_filter(known).transform_filter(UNTIL)
    front = (
        rows.transform_filter("shown == null || indexof(shown, datum.run) >= 0")
        .transform_window(
            best="max(cnr)", sort=[alt.SortField("distance"), alt.SortField("cnr", "descending")], frame=[None, 0]
        )
        .transform_filter("datum.cnr >= datum.best")
        .mark_line(interpolate="step-after", strokeDash=[2, 3], strokeWidth=1.5, color="var(--axis)", aria=False)
        .encode(x=across, y=up, order="distance:Q")
    )
    runs = rows.encode(x=across, y=up, color=_colour(), opacity=_opacity(0.28, 0.9), tooltip=tips)
    paths = runs.mark_line(aria=False, strokeWidth=1.6).encode(detail="run:N", order="images:Q")
    points = runs.mark_point(filled=True, size=46, aria=False).encode(shape=_shape())
    start = rows.transform_filter("datum.images == 0").mark_point(filled=True, size=14, color="var(--card)", aria=False)
    names = (
        rows.transform_joinaggregate(last="max(images)", groupby=["run"])
        .transform_calculate(said="named == 'images' ? format(datum.images, '~s') : datum.run")
        .mark_text(align="right", dx=-8, dy=-10, fontWeight=600, aria=False)
        .encode(x=across, y=up, text="said:N", color=_colour())
        .encode(opacity=alt.OpacityValue(0, condition={"test": NAMED, "value": 1}))
    )
    pooled = alt.Chart(alt.NamedData("means")).transform_filter(known).transform_filter(UNTIL)
    mean = pooled.encode(
        x=across, y=up, color=_colour(), opacity=_of_all(1), tooltip=[*tips, alt.Tooltip("n:Q", title="seeds")]
    )
    return _finished(
        [
            front,
            *_references(across, up, "distance", "cnr"),
            pooled.mark_rule(strokeWidth=1.2, aria=False).encode(
                x=alt.X("distance_low:Q", title=f"{x}; better images →"),
                x2="distance_high",
                y=up,
                color=_colour(),
                opacity=_of_all(0.5),
            ),
            pooled.mark_rule(strokeWidth=1.2, aria=False).encode(
                x=across,
                y=alt.Y("cnr_low:Q", title=f"{y}; better grounding →"),
                y2="cnr_high",
                color=_colour(),
                opacity=_of_all(0.5),
            ),
            paths,
            points,
            start.encode(x=across, y=up),
            mean.mark_line(aria=False, strokeWidth=3).encode(detail="kind:N", order="images:Q"),
            mean.mark_point(filled=True, size=95, aria=False).encode(shape=_shape()),
            names,
            *_published(across, up),
        ],
        height,
        f"{y} against {x}, one path a run from the first evaluation on",
        _params(),
    )


def _references(across: alt.X, up: alt.Y, x: str, y: str) -> list[alt.Chart]:
    """Dashed lines for what needs no training: the location prior across, real against real upright."""
    data = alt.Chart(alt.NamedData("references"))
    flat = data.transform_filter(f"isValid(datum.{y})").encode(y=up)
    found = [
        flat.mark_rule(strokeDash=[5, 4], color="var(--soft)", aria=False),
        flat.mark_text(align="left", dx=4, dy=-6, aria=False).encode(x=alt.value(0), text="label:N"),
    ]
    if x:
        upright = data.transform_filter(f"isValid(datum.{x})").encode(x=across)
        name = upright.mark_text(align="right", angle=270, dx=-4, dy=-6, aria=False)
        found.append(upright.mark_rule(strokeDash=[5, 4], color="var(--soft)", aria=False))
        found.append(name.encode(y=alt.value(0), text="label:N"))
    return found


def _published(across: alt.X, up: alt.Y) -> list[alt.Chart]:
    data = alt.Chart(alt.NamedData("published")).transform_filter("isValid(datum.distance) && isValid(datum.cnr)")
    base = data.encode(
        x=across, y=up, color=_colour(), tooltip=_whose(("distance", "distance", ",.4~r"), ("cnr", "grounding", ".3f"))
    )
    return [
        base.mark_point(shape="cross", size=110, strokeWidth=2, aria=False),
        base.mark_text(dy=-12, fontStyle="italic", aria=False).encode(text="run:N"),
    ]


@cache
def curve(height: int = 230) -> Spec:
    """One figure (``value``) against training images; dragging over it marks the same stretch in the other charts."""
    y = _title("value")
    across = alt.X("images:Q", title="training images", axis=alt.Axis(format="~s"))
    up = alt.Y("value:Q", title=y, scale=alt.Scale(zero=False, padding=8))
    tips = _whose(("images", "training images", ",d"), ("value", y, ",.4~r"))
    known = "isValid(datum.value)"
    rows = alt.Chart(alt.NamedData("evaluations")).transform_filter(known).transform_filter(UNTIL)
    runs = rows.encode(x=across, y=up, color=_colour(small=True), opacity=_opacity(0.28, 0.9), tooltip=tips)
    pooled = alt.Chart(alt.NamedData("means")).transform_filter(known).transform_filter(UNTIL)
    mean = pooled.encode(x=across, color=_colour(small=True), detail="kind:N")
    return _finished(
        [
            runs.mark_line(aria=False, strokeWidth=1.6).encode(detail="run:N"),
            *_references(across, up, "", "value"),
            mean.mark_area(aria=False).encode(y=alt.Y("value_low:Q", title=y), y2="value_high", opacity=_of_all(0.16)),
            runs.mark_point(filled=True, size=30, aria=False).encode(shape=_shape(small=True)),
            mean.mark_line(aria=False, strokeWidth=3).encode(y=up, opacity=_of_all(1), tooltip=tips),
        ],
        height,
        f"{y} against training images, one line a run",
        _params(brush=True),
    )


@cache
def loss(height: int = 230) -> Spec:
    """Training (full) and validation loss (dashed) against training images."""
    rows = alt.Chart(alt.NamedData("loss")).transform_filter(UNTIL)
    dash = alt.StrokeDash(
        "part:N",
        title="loss",
        scale=alt.Scale(domain=["training", "validation"], range=[[1, 0], [5, 4]]),
        legend=alt.Legend(orient="top"),
    )
    line = rows.mark_line(aria=False, strokeWidth=1.4).encode(
        x=alt.X("images:Q", title="training images", axis=alt.Axis(format="~s")),
        y=alt.Y("loss:Q", title="loss, log scale", scale=alt.Scale(type="log")),
        color=_colour(small=True),
        strokeDash=dash,
        detail="run:N",
        opacity=_opacity(0.85, 0.85),
        tooltip=_whose(("images", "training images", ",d"), ("loss", "loss", ".4f")),
    )
    return _finished([line], height, "training and validation loss against training images", _params())


@cache
def dots(table: str, what: str, x: str = "CNR", height: int = 320) -> Spec:
    """A dot for every kind of run in every row of ``what``, its interval as a line, the location prior as a tick.

    Args:
        table: name of the table, with columns ``what``, ``order``, ``cnr``, ``low``, ``high``, ``prior``, ``arm``.
        what: title of the rows.
        x: title of the figure.
    """
    rows = alt.Chart(alt.NamedData(table))
    title = f"{x}; more is better →"
    place = alt.Y("what:N", title=what, sort=alt.EncodingSortField("order", op="min"), axis=alt.Axis(labelLimit=190))
    base = rows.encode(
        y=place, yOffset=alt.YOffset("arm:N", sort="ascending", scale=alt.Scale(paddingOuter=0.35)), color=_colour()
    )
    tips = [
        alt.Tooltip("what:N", title=what),
        alt.Tooltip("arm:N", title="runs"),
        alt.Tooltip("runs:Q", title="number of runs"),
    ]
    tips += [
        alt.Tooltip(f"{name}:Q", title=said, format=".3f")
        for name, said in (("cnr", x), ("low", "from"), ("high", "to"))
    ]
    tips += [alt.Tooltip("prior:Q", title="location prior", format=".3f"), alt.Tooltip("n:Q", title="N phrases")]
    at = alt.X("cnr:Q", title=title, scale=alt.Scale(zero=True))
    return _finished(
        [
            rows.mark_rule(color="var(--axis)", aria=False).encode(x=alt.XDatum(0, title=title)),
            base.mark_rule(strokeWidth=2, invalid=None, aria=False).encode(
                x=alt.X("low:Q", title=title), x2="high", opacity=_known("low", 0.55)
            ),
            base.mark_text(
                text="|", fontWeight="bold", fontSize=15, baseline="middle", invalid=None, aria=False
            ).encode(x=alt.X("prior:Q", title=title), color=alt.value("var(--ink)"), opacity=_known("prior", 1)),
            base.mark_point(filled=True, size=75, opacity=1, invalid=None, aria=False).encode(
                x=at, shape=_shape(), tooltip=tips
            ),
        ],
        height,
        f"{x} by {what}, with intervals and the location prior",
        _params(zoom=False),
    )


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
