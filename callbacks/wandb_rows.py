"""One evaluation in W&B: a row with figures, controls, pictures with boxes and masks, tables, the trade-off. Source: own."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from callbacks.media import Media, Picture, TextTable
from callbacks.wandb_axis import draw_over_images
from callbacks.wandb_files import kept_beside
from callbacks.wandb_trouble import unless_in_trouble
from meddiff.reports.page.wording import CNR_ORDER, COLUMNS, direction, fidelity_keys, label, parts

if TYPE_CHECKING:
    import wandb

#: Names a chart of the user's own, ENTITY/NAME, in which the trade-off is drawn; `lightning dashboard push` makes one.
CHART_VARIABLE = "MEDDIFF_WANDB_CHART"
#: W&B's own scatter plot, which every server has.
PLAIN_CHART = "wandb/scatter/v0"
#: W&B shows no more rows of a table.
MOST_ROWS = 10_000

Evaluations = Sequence[tuple[int, Mapping[str, float]]]


def log_to_wandb(
    logger: WandbLogger, row: Mapping[str, float], media: Sequence[Media], evaluations: Evaluations, step: int
) -> None:
    """Everything of one evaluation in one commit.

    Args:
        row: figures, controls and ``images``.
        evaluations: of the run so far, this one included: images, figures.
    """

    def send() -> None:
        run = logger.experiment
        draw_over_images(run, row)
        shown: dict[str, object] = {}
        for one in media:
            shown |= {name: wandb_images(pictures) for name, pictures in one.pictures.items() if pictures}
            shown |= {name: wandb_table(table) for name, table in one.tables.items()}
        told = dict(run.config)
        chart = tradeoff_chart(evaluations, (str(run.name), told.get("encoder"), told.get("prompt")))
        if chart is not None:
            shown["tradeoff"] = chart
        with kept_beside(run):
            logger.log_metrics({**row, **shown}, step)  # type: ignore[dict-item]  # W&B's takes more than numbers
        run.summary.update(best_values(evaluations))

    unless_in_trouble(logger, send)


def wandb_images(pictures: Sequence[Picture]) -> "list[wandb.Image]":
    """With caption, boxes and mask; a class has one number in all of them, so that W&B can filter by it."""
    import wandb

    numbers = {name: i for i, name in enumerate(sorted({one.label for one in pictures if one.label}), start=1)}
    labels = {number: name for name, number in numbers.items()}
    found = []
    for one in pictures:
        boxes, masks = None, None
        if one.boxes:
            data = [
                {
                    "position": {"minX": x, "minY": y, "maxX": x + w, "maxY": y + h},
                    "domain": "pixel",
                    "class_id": numbers[one.label],
                    "box_caption": one.label,
                }
                for x, y, w, h in (map(float, box) for box in one.boxes)
            ]
            boxes = {"finding": {"box_data": data, "class_labels": labels}}
        if one.mask is not None:
            pixels = np.where(one.mask, numbers[one.label], 0).astype(np.uint8)
            masks = {"finding": {"mask_data": pixels, "class_labels": labels}}
        found.append(wandb.Image(Image.fromarray(one.pixels), caption=one.caption, boxes=boxes, masks=masks))
    return found


def wandb_table(table: TextTable) -> "wandb.Table":
    """The first rows, as many as W&B shows."""
    import wandb

    columns, rows = table
    return wandb.Table(columns=list(columns), data=[list(row) for row in rows[:MOST_ROWS]], allow_mixed_types=True)


def tradeoff_chart(evaluations: Evaluations, who: tuple[object, object, object]) -> "wandb.plot.CustomChart | None":
    """The path of the run so far; None until an evaluation had both sides.

    Drawn by the chart that :data:`CHART_VARIABLE` names, else by W&B's own scatter plot.

    Args:
        who: the run, its text encoder ("frozen" or "learnable"), its prompts.
    """
    import wandb

    cnr, distance = sides(evaluations)
    rows = [
        [*who, images, values[distance], values[cnr]]
        for images, values in evaluations
        if math.isfinite(values.get(distance, math.nan)) and math.isfinite(values.get(cnr, math.nan))
    ]
    if not rows:
        return None
    table = wandb.Table(columns=list(COLUMNS), data=rows)
    own = os.environ.get(CHART_VARIABLE)
    fields = {name: name for name in COLUMNS} if own else {"x": "distance", "y": "cnr"}
    title = {"title": f"{label(cnr)} against {label(distance)}"}
    return wandb.plot_table(
        own or PLAIN_CHART, table, fields, {"distance": label(distance), "cnr": label(cnr)} if own else title
    )


def sides(evaluations: Evaluations) -> tuple[str, str]:
    """Which grounding score and which distance stand for the two sides."""
    keys = {key for _, values in evaluations for key in values}
    return next((key for key in CNR_ORDER if key in keys), CNR_ORDER[0]), next(iter(fidelity_keys(keys)), "")


def best_values(evaluations: Evaluations) -> dict[str, float]:
    """``best/NAME`` of everything that has a better and a worse, and the two sides by short names for W&B's scatter plots.

    Example:
        >>> rows = [(0, {"grounding/cnr": 0.1, "fidelity/fd_domain": 9.0}), (16, {"grounding/cnr": 0.4}),
        ...         (32, {"grounding/cnr": 0.3, "fidelity/fd_domain": 5.0})]
        >>> found = best_values(rows)
        >>> found["best/grounding/cnr"], found["best_cnr"], found["images_at_best_cnr"]
        (0.4, 0.4, 16.0)
        >>> found["best_distance"], found["cnr_at_best_distance"], found["images_at_best_distance"]
        (5.0, 0.3, 32.0)
    """
    best: dict[str, tuple[float, int]] = {}
    for images, values in evaluations:
        for key, value in values.items():
            sign = direction(key)
            if not sign or parts(key.partition("/")[2])[3] or not math.isfinite(value):
                continue
            if key not in best or sign * value > sign * best[key][0]:
                best[key] = (value, images)
    found = {f"best/{key}": value for key, (value, _) in best.items()}
    cnr, distance = sides(evaluations)
    for name, key in (("cnr", cnr), ("distance", distance)):
        if key in best:
            found[f"best_{name}"], found[f"images_at_best_{name}"] = best[key][0], float(best[key][1])
    there = next((values for images, values in evaluations if distance in best and images == best[distance][1]), {})
    if math.isfinite(value := there.get(cnr, math.nan)):
        found["cnr_at_best_distance"] = value
    return found
