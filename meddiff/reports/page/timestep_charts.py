"""Charts by timestep, as Vega-Lite like those of :mod:`meddiff.reports.page.charts`. Source: own."""

from functools import cache

import altair as alt

from meddiff.reports.page.charts import FADED, SHOWN, Spec, _colour, _finished, _if, _params, _tips, _title
from meddiff.reports.page.figures import filled
from meddiff.reports.page.tables import Tables

#: Colours of tools, told apart with any colour vision (Okabe and Ito).
TOOLS = {
    "attention": "#0072b2",
    "end_token": "#56b4e9",
    "concept": "#009e73",
    "df_rise": "#d55e00",
    "df_rise_prompt": "#a0522d",
    "df_cam": "#cc79a7",
    "relevance": "#e69f00",
    "untrained": "#6b7683",
    "prior": "#000000",
}
#: What deletion and insertion are read against.
ORDERS = {"random": "#9aa6b2", "centre": "#000000"}


@cache
def by_timestep(table: str = "saliency") -> Spec:
    """One figure (``value``) of each run against the timestep, its interval over images as a band."""
    y = _title("value")
    rows = alt.Chart(alt.NamedData(table)).transform_filter("isValid(datum.value)")
    across = alt.X("timestep:Q", title="timestep of the noise: drawing goes from right to left")
    tips = _tips(
        ("timestep", "timestep", "d"), ("value", y, ".3f"), ("value_low", "from", ".3f"), ("value_high", "to", ".3f")
    )
    line = rows.encode(
        x=across,
        y=alt.Y("value:Q", title=y, scale=alt.Scale(zero=True, padding=8)),
        color=_colour(small=True),
        detail="run:N",
        opacity=_if(SHOWN, 0.9, FADED),
        tooltip=tips,
    )
    band = (
        rows.transform_filter("isValid(datum.value_low)")
        .mark_area()
        .encode(
            x=across,
            y=alt.Y("value_low:Q", title=y),
            y2="value_high",
            color=_colour(small=True),
            detail="run:N",
            opacity=_if(SHOWN, 0.14),
        )
    )
    layers = [band, line.mark_line(strokeWidth=1.8), line.mark_point(filled=True, size=32)]
    return _finished(layers, f"{y} against the timestep, one line a run", _params(), 230)


@cache
def emergence() -> Spec:
    """Change of a prototype's activation (``value``, with its interval) against the timestep, with what blur alone (``blur``,
    dashed) and a random prototype (``chance``, dotted) have of it."""
    across = alt.X("timestep:Q", title="timestep")
    rows = alt.Chart(alt.NamedData("emergence"))
    layers = []
    for name, dash in (("blur", [5, 4]), ("chance", [1, 3])):
        known = rows.transform_filter(f"isValid(datum.{name})")
        line = known.mark_line(strokeWidth=1.4, strokeDash=dash, color="var(--soft)")
        layers.append(
            line.encode(x=across, y=alt.Y(f"{name}:Q", title="change"), detail="run:N", opacity=_if(SHOWN, 0.9, FADED))
        )
    known = rows.transform_filter("isValid(datum.value)")
    ends = known.transform_filter("isValid(datum.value_low)")
    band = ends.mark_area(color="var(--ink)").encode(x=across, y=alt.Y("value_low:Q", title="change"), y2="value_high")
    layers.insert(0, band.encode(detail="run:N", opacity=_if(SHOWN, 0.12)))
    tips = _tips(("timestep", "timestep", "d"), ("value", "change", ".3f"))
    line = known.mark_line(strokeWidth=1.8, color="var(--ink)").encode(
        x=across, y=alt.Y("value:Q", title="change", scale=alt.Scale(zero=True))
    )
    layers.append(line.encode(detail="run:N", opacity=_if(SHOWN, 0.95, FADED), tooltip=tips))
    return _finished(layers, "change of a prototype's activation against the timestep", _params(), 120)


@cache
def tools(figure: str, title: str) -> Spec:
    """Every tool of every run against the timestep.

    Args:
        figure: column of the table ``saliency_tools``: "cnr" or "gain".
        title: of the axis.
    """
    rows = alt.Chart(alt.NamedData("saliency_tools")).transform_filter(f"isValid(datum.{figure})")
    across = alt.X("timestep:Q", title="timestep of the noise: drawing goes from right to left")
    scale = alt.Scale(domain=list(TOOLS), range=list(TOOLS.values()))
    legend = alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)
    colour = alt.Color("tool:N", title="map", scale=scale, legend=legend)
    dash = alt.StrokeDash("run:N", title="run", legend=alt.Legend(orient="top"))
    tips = _tips(
        *(("timestep", "timestep", "d"), (figure, title, ".3f")),
        *((f"{figure}_low", "from", ".3f"), (f"{figure}_high", "to", ".3f")),
        names=("tool", "run", "text encoder:encoder"),
    )
    line = rows.encode(
        x=across,
        y=alt.Y(f"{figure}:Q", title=title, scale=alt.Scale(zero=True)),
        color=colour,
        opacity=_if(SHOWN, 0.95, FADED),
        tooltip=tips,
    )
    band = rows.transform_filter(f"isValid(datum.{figure}_low)").mark_area().encode(
        x=across, y=alt.Y(f"{figure}_low:Q", title=title), y2=f"{figure}_high", color=colour, detail="run:N",
        opacity=_if(SHOWN, 0.1),
    )  # fmt: skip
    layers = [
        band,
        line.mark_line(strokeWidth=2).encode(strokeDash=dash),
        line.mark_point(filled=True, size=30).encode(detail="run:N"),
    ]
    return _finished(layers, f"{title} of every kind of map against the timestep", _params(), 300)


@cache
def game(name: str, title: str) -> Spec:
    """Distance against the share of positions taken, one line a kind of map, a mean over timesteps.

    Args:
        name: deletion or insertion.
        title: of the axis.
    """
    rows = (
        alt.Chart(alt.NamedData("saliency_games"))
        .transform_filter("isValid(datum.value)")
        .transform_filter(f"datum.game == '{name}'")
    )
    scale = alt.Scale(domain=[*TOOLS, *ORDERS], range=[*TOOLS.values(), *ORDERS.values()])
    legend = alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1, columns=6)
    line = rows.mark_line(strokeWidth=1.8).encode(
        x=alt.X("taken:Q", title="share of positions, highest values first", axis=alt.Axis(format="%")),
        y=alt.Y("mean(value):Q", title=title, scale=alt.Scale(zero=True)),
        color=alt.Color("tool:N", title="map", scale=scale, legend=legend),
        strokeDash=alt.StrokeDash("run:N", title="run", legend=None),
        opacity=_if(SHOWN, 0.95, FADED),
    )
    return _finished([line], f"{name}: {title}", _params(), 260)


@cache
def relevance() -> Spec:
    """Share of relevance of each kind of token against the timestep."""
    rows = alt.Chart(alt.NamedData("saliency_relevance")).transform_filter("isValid(datum.value)")
    legend = alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)
    line = rows.encode(
        x=alt.X("timestep:Q", title="timestep of the noise: drawing goes from right to left"),
        y=alt.Y("value:Q", title="share of relevance", scale=alt.Scale(zero=True), axis=alt.Axis(format="%")),
        color=alt.Color("tokens:N", title="tokens", scale=alt.Scale(scheme="tableau10"), legend=legend),
        opacity=_if(SHOWN, 0.95, FADED),
        tooltip=_tips(("timestep", "timestep", "d"), ("value", "share", ".1%"), names=("tokens", "run")),
    )
    layers = [
        line.mark_line(strokeWidth=1.8).encode(strokeDash=alt.StrokeDash("run:N", title="run", legend=None)),
        line.mark_point(filled=True, size=30).encode(detail="run:N"),
    ]
    return _finished(layers, "share of relevance of each kind of token against the timestep", _params(), 260)


def all_of_them() -> dict[str, Spec]:
    """Name in the page -> chart."""
    gain = "gain over an absent finding (CNR)"
    return {
        "by_timestep": by_timestep(),
        "tools_cnr": tools("cnr", "CNR"),
        "tools_gain": tools("gain", gain),
        "deletion": game("deletion", "distance when taken away (high is good)"),
        "insertion": game("insertion", "distance when given back (low is good)"),
        "relevance": relevance(),
    }


def timestep_figures(tables: Tables) -> dict[str, Spec]:
    """The charts of all tools as figures that stand for themselves; none where nothing was explained."""
    named = {
        "maps_by_timestep": ("tools_cnr", "saliency_tools"),
        "gain_by_timestep": ("tools_gain", "saliency_tools"),
        "deletion": ("deletion", "saliency_games"),
        "insertion": ("insertion", "saliency_games"),
        "relevance": ("relevance", "saliency_relevance"),
    }
    charts = all_of_them()
    return {name: filled(charts[chart], tables) for name, (chart, table) in named.items() if tables.by_timestep[table]}
