"""What the curves by timestep say: which tool grounds best where, and at how much noise the place is known. Source: own."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from meddiff.attribution.words import QUERY_WORDS
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.grounding_scores import localisation
from meddiff.evaluation.measurement import Row, Value
from meddiff.evaluation.priors import usual_place
from meddiff.evaluation.saliency_scores import FIGURES, MICRO, Entry, Point, Points, mean_row
from meddiff.evaluation.saliency_tools import ALL
from meddiff.evaluation.samples import GroundingSample
from meddiff.shards.dataset import LatentShardsDataset

BEST = ("timestep", "figure", "tool", "value", "second", "difference", "low", "high", "n")
SHARES = ("tool", "timestep", "tokens", "value", "low", "high", "n")
WHEN = ("tool", "layer", "class", "figure", "best_timestep", "value", "low", "high", "known_from", "known_to", "n")


def best_rows(points: Points) -> list[Row]:
    """Of each timestep the tool whose maps score highest, on the phrases that all tools were asked there.

    ``difference`` to the second best is paired by phrase, with its 95 % interval over images; where it covers 0 the two are
    not told apart. Figures: ``cnr``, and ``gain/absent``, the CNR less that of a finding the image does not have.
    """
    rows: list[Row] = []
    for timestep in sorted({t for _, layer, t in points if layer == ALL}, reverse=True):
        of_tools = {tool: some for (tool, layer, t), some in points.items() if layer == ALL and t == timestep}
        for figure in ("cnr", "gain/absent"):
            cells = {
                tool: {(one["key"], one["label"], place): _value(one, figure) for place, one in _numbered(some)}
                for tool, some in of_tools.items()
            }
            cells = {tool: {k: v for k, v in one.items() if np.isfinite(v)} for tool, one in cells.items()}
            cells = {tool: one for tool, one in cells.items() if one}
            common = sorted(set.intersection(*map(set, cells.values()))) if cells else []
            if not common:
                continue
            order = sorted(cells, key=lambda tool: -float(np.mean([cells[tool][key] for key in common])))
            best = [(key[0], key[1], cells[order[0]][key]) for key in common]
            row: dict[str, Value] = {"timestep": timestep, "figure": figure, "tool": order[0]}
            row |= {"value": mean_row(best)["value"], "n": len(common)}
            for first, second in list(pairwise(order))[:1]:
                apart = mean_row([(key[0], key[1], cells[first][key] - cells[second][key]) for key in common])
                row |= {"second": second, "difference": apart["value"], "low": apart["low"], "high": apart["high"]}
            rows.append(row)
    return rows


def _numbered(some: Sequence[Point]) -> list[tuple[int, Point]]:
    """Points with their number among those of the same image and class: an image may have two phrases about one finding."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    for one in some:
        at = (one["key"], one["label"])
        counts[at] = counts.get(at, -1) + 1
        found.append((counts[at], one))
    return found


def _value(point: Point, figure: str) -> float:
    asked, under, _ = point["pairs"].get("absent", (None, None, 0))
    if figure == "cnr":
        asked, under = point["scores"]["cnr"], 0.0
    return float("nan") if asked is None or under is None else float(asked) - float(under)


def when_rows(rows: Sequence[Row]) -> list[Row]:
    """Of each tool, layer and class the timestep at which its curve is highest, and the stretch in which the place is known.

    Known is the place where the whole interval of the figure lies above 0: ``known_from`` is the largest such timestep (the
    first in the order of drawing), ``known_to`` the least; empty where there is none. Read it on ``gain/absent``: a CNR alone
    is above 0 for a map that looks at whatever is abnormal.

    Args:
        rows: of :func:`meddiff.evaluation.saliency_scores.curve_rows`.
    """
    curves: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        if (
            row["figure"] in ("cnr", "gain/absent", "gain")
            and row["value"] is not None
            and row.get("timestep") is not None
        ):
            name = (str(row["tool"]), str(row["layer"]), str(row["class"]), str(row["figure"]))
            curves.setdefault(name, []).append(row)
    found: list[Row] = []
    for (tool, layer, label, figure), line in curves.items():
        top = max(line, key=lambda row: float(row["value"] or 0.0))
        known = [int(row["timestep"] or 0) for row in line if row.get("low") is not None and float(row["low"] or 0) > 0]
        found.append(
            {"tool": tool, "layer": layer, "class": label, "figure": figure, "best_timestep": top["timestep"]}
            | {"value": top["value"], "low": top.get("low"), "high": top.get("high"), "n": top["n"]}
            | {"known_from": max(known, default=None), "known_to": min(known, default=None)}
        )
    return found


def headline(rows: Sequence[Row]) -> dict[str, float]:
    """Figures of a measurement: of each tool the highest CNR and gain of its curve and where it is reached."""
    figures: dict[str, float] = {}
    for row in when_rows(rows):
        if row["layer"] == ALL and row["class"] == MICRO:
            name = f"{row['tool']}/{str(row['figure']).replace('/', '_')}"
            figures[name] = float(row["value"] or 0.0)
            figures[f"{name}_timestep"] = float(row["best_timestep"] or 0)
    return figures


def prior_rows(train: LatentShardsDataset | None, samples: Sequence[GroundingSample]) -> list[Row]:
    """What the usual place of each class scores on the same phrases: it has no timestep."""
    answer = usual_place(train, samples, list(QUERY_WORDS))
    with one_core():
        scores = [localisation(answer(one).heat, torch.from_numpy(one.box_mask())) for one in samples]
    rows: list[Row] = []
    for label in (MICRO, *sorted({one.label for one in samples})):
        chosen = [(one, score) for one, score in zip(samples, scores, strict=True) if label in (MICRO, one.label)]
        for figure in FIGURES:
            cells = [(one.key, one.label, score[figure]) for one, score in chosen]
            rows.append({"tool": "prior", "layer": ALL, "class": label, "figure": figure, **mean_row(cells)})
    return rows


def share_rows(entries: Sequence[Entry]) -> list[Row]:
    """Mean share of each kind of token at each timestep, with its interval over images: roles of the report (finding, relation,
    place), all words, function words, start and end token, padding."""
    cells: dict[tuple[str, int, str], list[tuple[str, str, float]]] = {}
    for one in entries:
        for kind, values in one["shares"].items():
            for timestep, value in zip(one["timesteps"], values, strict=True):
                cells.setdefault((one["source"], timestep, kind), []).append((one["key"], one["label"], value))
    return [
        {"tool": tool, "timestep": timestep, "tokens": kind, **mean_row(values)}
        for (tool, timestep, kind), values in cells.items()
    ]
