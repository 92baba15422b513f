"""How much each word of a prompt is listened to at each timestep, as a picture: prompts downwards, schedules to the right.

Source: the curves of Park, Ju and Lee (2024), of shares of all tokens instead of a min-max over words, of which one always has
1; the min-max stands in the table.
"""

import json
import re
from collections.abc import Mapping, Sequence

import altair as alt

from meddiff.reports.page.charts import CONFIG, LIGHT, Spec
from meddiff.reports.page.figures import VERSION

WIDTH, HEIGHT = 260, 150
#: Characters of a prompt above its curves.
LONGEST = 60


def word_curves(rows: Sequence[Mapping[str, object]]) -> Spec:
    """A chart that stands for itself, out of rows of ``relevance_by_word``.

    A word that a prompt holds twice is two curves, numbered.
    """
    told = [
        {
            "prompt": str(row["prompt"])[:LONGEST],
            "schedule": row["schedule"],
            "word": f"{int(str(row['place'])) + 1}. {row['word']}",
            "timestep": row["timestep"],
            "share": row["share"],
        }
        for row in rows
    ]
    cells = []
    for prompt in dict.fromkeys(str(one["prompt"]) for one in told):
        mine = [one for one in told if one["prompt"] == prompt]
        line = (
            alt.Chart(alt.InlineData(mine))
            .mark_line(point=True, strokeWidth=1.8)
            .encode(
                x=alt.X("timestep:Q", title="timestep of the noise", scale=alt.Scale(reverse=True)),
                y=alt.Y("share:Q", title="share of relevance", axis=alt.Axis(format="%")),
                color=alt.Color("word:N", title=None, scale=alt.Scale(scheme="tableau10"), sort=None),
            )
            .properties(width=WIDTH, height=HEIGHT)
        )
        columns = alt.Column("schedule:N", title=prompt, sort=None, header=alt.Header(titleAnchor="start"))
        cells.append(line.facet(column=columns))
    config = re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], json.dumps(CONFIG))
    chart = alt.vconcat(*cells).resolve_scale(color="independent")
    return {**chart.to_dict(), "config": json.loads(config), "background": "white"}


def word_curves_svg(rows: Sequence[Mapping[str, object]]) -> bytes | None:
    """The chart as SVG; None where vl-convert is not installed, or there is no word."""
    try:
        import vl_convert
    except ImportError:
        return None
    return vl_convert.vegalite_to_svg(word_curves(rows), vl_version=VERSION).encode() if rows else None
