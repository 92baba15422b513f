"""Run folders as named tables of plain columns: what charts draw, pages list, trackers and dashboards send.

A table is ``{column: [value of each row]}`` with numbers, texts and None (never NaN), so that it travels as JSON. Each is made
when it is first asked for. Source: own.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from meddiff.reports.page import mechanism, saliency
from meddiff.reports.page.derived import (
    Columns,
    Row,
    class_rows,
    columns,
    fidelity_n,
    flat,
    grounding_gains,
    mean_of,
    phrases_n,
    pooled,
    reduced,
    rows_of,
    seed_means,
)
from meddiff.reports.page.wording import CNR_ORDER, HEADLINE, fidelity_keys
from meddiff.reports.paper.published import averages, class_values, published, table1_column
from meddiff.runs.folder import Run
from meddiff.runs.values import number

#: settings that tell runs of one kind apart, but not the kinds
OWN = re.compile(r"(^|\.)(seed|seed_everything|name|version|id|command|resume|\w*_dir|dirpath|callbacks.*|logger.*)$")
FREEZING = "model.init_args.freeze_text_encoder"
PROMPT = "data.init_args.prompt"
#: points that the loss of one run, and of all runs together, is reduced to
LOSS_POINTS, ALL_LOSS_POINTS = 240, 6000
#: beyond so many runs the rows of evaluations leave out the figures of single classes
CLASS_COLUMNS = 12
LOG_RATIO = 8.0
#: query words that are drawn
WORDS = 24
#: captions from the least varied to the most
VARIABILITY = ("label", "synthetic", "mixed", "impression")


@dataclass(frozen=True)
class Who:
    """What a run is, in every table.

    Attributes:
        encoder: "frozen", "learnable" or "other" (published, or not said).
        kind: of runs that differ by nothing but their seed, one name.
    """

    run: str
    sweep: str
    encoder: str
    prompt: str
    seed: int
    kind: str

    def row(self) -> Row:
        """Its columns."""
        return dict(vars(self))


class Tables:
    """The tables of some runs, whose names differ (:func:`meddiff.runs.distinct_names.distinct_names`)."""

    def __init__(self, found: Sequence[Run]) -> None:
        self.found = list(found)
        self.keys = sorted({key for run in found for evaluation in run.evaluations for key in evaluation.values})
        self.distances = fidelity_keys(self.keys)
        self.groundings = [key for key in HEADLINE if key in self.keys]
        self.distance = self.distances[0] if self.distances else "fidelity/fd_domain"
        self.cnr = next((key for key in CNR_ORDER if key in self.keys), CNR_ORDER[0])

    @cached_property
    def settings(self) -> list[dict[str, object]]:
        """The whole configuration of each run, flat."""
        return [flat(run.config) for run in self.found]

    @cached_property
    def differing(self) -> list[str]:
        """Settings that are not the same in all runs."""
        keys = dict.fromkeys(key for one in self.settings for key in one)
        return [key for key in keys if len({repr(one.get(key)) for one in self.settings}) > 1]

    @cached_property
    def who(self) -> list[Who]:
        """One a run, in their order."""
        more = [key for key in self.differing if not OWN.search(key) and key not in (FREEZING, PROMPT)]
        found = []
        for run, settings in zip(self.found, self.settings, strict=True):
            encoder = run.facts.encoder or "other"
            prompt = run.facts.prompt or ("" if run.published else "impression")
            others = [f"{key.rpartition('.')[2]} {settings[key]}" for key in more if key in settings]
            kind = ", ".join([run.name] if encoder == "other" else [encoder, prompt, *others])
            found.append(Who(run.name, run.sweep, encoder, prompt, run.facts.seed, kind))
        return found

    @property
    def telling(self) -> list[str]:
        """Which columns of :class:`Who` are not the same in all runs."""
        return [name for name in vars(self.who[0]) if len({getattr(one, name) for one in self.who}) > 1]

    def is_log(self, key: str) -> bool:
        """Whether a distance spans so much that its axis is logarithmic."""
        values = [e.values[key] for run in self.found for e in run.evaluations if key in e.values]
        return key in self.distances and bool(values) and min(values) > 0 and max(values) > LOG_RATIO * min(values)

    def rows_with(self, *keys: str) -> list[int]:
        """How many evaluations of each run have all these figures."""
        return [sum(all(key in e.values for key in keys) for e in run.evaluations if e.values) for run in self.found]

    def _pairs(self) -> Iterable[tuple[Who, Run]]:
        return zip(self.who, self.found, strict=True)

    @cached_property
    def evaluations(self) -> Columns:
        """One row a run and evaluation: who, images, step, distance, cnr and every measured name."""
        few = len(self.found) <= CLASS_COLUMNS
        names = [key for key in self.keys if few or key.count("/") == 1 or key in self.distances]
        return columns(
            {**who.row(), "images": one.images, "step": one.step}
            | {"distance": one.values.get(self.distance), "cnr": one.values.get(self.cnr)}
            | {key: one.values.get(key) for key in names}
            for who, run in self._pairs()
            for one in run.evaluations
        )

    @cached_property
    def means(self) -> Columns:
        """One row a kind and number of images: mean over runs that differ by their seed alone, ``KEY low`` and ``KEY high``,
        where all seeds that got that far are there; the ends: a 95 % interval from five seeds on, else least and greatest."""
        found = [(who.row(), one.images, one.values) for who, run in self._pairs() for one in run.evaluations]
        return columns(seed_means(found, (*self.distances, *self.groundings)))

    @cached_property
    def mechanism(self) -> Columns:
        """One row a run and checkpoint: figures of ``lightning evaluate mechanism`` with their intervals."""
        return columns(who.row() | row for who, run in self._pairs() for row in mechanism.of_run(run))

    @cached_property
    def mechanism_means(self) -> Columns:
        """The same over runs that differ by their seed alone, as :attr:`means`."""
        return columns(mechanism.means([(who.row(), run) for who, run in self._pairs()]))

    @cached_property
    def mechanism_timesteps(self) -> Columns:
        """One row a run and timestep of its newest checkpoint."""
        return columns(who.row() | row for who, run in self._pairs() for row in mechanism.timesteps(run))

    @cached_property
    def saliency(self) -> Columns:
        """One row a run and timestep: figures of ``lightning explain`` with their intervals."""
        return columns(who.row() | row for who, run in self._pairs() for row in saliency.timesteps(run))

    @cached_property
    def by_timestep(self) -> dict[str, Columns]:
        """Tables of ``lightning explain`` with several lines a run; of a few runs only."""
        few, several = list(self._pairs())[:CLASS_COLUMNS], saliency.SEVERAL.items()
        return {name: columns(who.row() | row for who, run in few for row in rows(run)) for name, rows in several}

    @cached_property
    def runs(self) -> Columns:
        """One row a run: grounding gain, newest, best values, gain over the first evaluation, the prior, counts."""
        rows = []
        for (who, run), grounding_gain in zip(self._pairs(), grounding_gains(self.found), strict=True):
            newest = run.evaluations[-1] if run.evaluations else None
            cnr, distance = run.series(self.cnr), run.series(self.distance)
            best = max(cnr, key=lambda point: point[1], default=None)
            least = min(distance, key=lambda point: point[1], default=None)
            prior = run.control("grounding", "prior", self.cnr.partition("/")[2])
            rows.append(
                who.row()
                | {"images": newest.images if newest else None, "evaluations": len(run.evaluations)}
                | {"grounding_gain": grounding_gain}
                | {"distance": distance[-1][1] if distance else None, "cnr": cnr[-1][1] if cnr else None}
                | {"least_distance": least[1] if least else None, "best_cnr": best[1] if best else None}
                | {"gain": best[1] - cnr[0][1] if best and len(cnr) > 1 else None, "prior": prior}
                | {"above_prior": best[1] - prior if best and prior is not None else None}
                | {"phrases": phrases_n(run), "drawn": fidelity_n(run), "updated": run.updated}
            )
        return columns(rows)

    @cached_property
    def phrases(self) -> Columns:
        """One row a run and phrase of the newest per-sample table."""
        return columns(
            who.row() | {name: row.get(name, "") for name in ("key", "class", "phrase", "words")}
            | {name: number(row.get(name)) for name in ("cnr", "top1", "mask_cnr")}
            for who, run in self._pairs()
            for row in run.phrases
        )  # fmt: skip

    @cached_property
    def classes(self) -> Columns:
        """One row a run and class: newest CNR with its 95 % interval over images, where it began, the prior."""
        return columns(who.row() | row for who, run in self._pairs() for row in class_rows(run))

    @cached_property
    def words(self) -> Columns:
        """One row a run and query word: mean CNR of the phrases that ask by it."""
        rows = []
        for who, run in self._pairs():
            found: dict[str, list[tuple[str, float]]] = {}
            for row in run.phrases:
                cnr = number(row.get("cnr"))
                for word in {one.strip(".,;:").lower() for one in row.get("words", "").split()} - {""}:
                    if cnr is not None:
                        found.setdefault(word, []).append((row.get("key", ""), cnr))
            rows += [who.row() | {"word": word, "n": len(cells)} | mean_of(cells) for word, cells in found.items()]
        return columns(rows)

    @cached_property
    def class_means(self) -> Columns:
        """Classes of all runs with one encoder and one prompt together, as :func:`pooled`."""
        return pooled(self.classes, "class")

    @cached_property
    def word_means(self) -> Columns:
        """The commonest query words, likewise."""
        found = pooled(self.words, "word")
        common = Counter({word: n for word, n in zip(found.get("what", []), found.get("n", []), strict=True)})
        order = {word: place for place, (word, _) in enumerate(common.most_common(WORDS))}
        return columns(row | {"order": order[row["what"]]} for row in rows_of(found) if row["what"] in order)

    @cached_property
    def prompt_means(self) -> Columns:
        """Newest grounding by what the captions were, from the least varied to the most; empty where all are alike."""
        found = rows_of(pooled(self.runs, "prompt"))
        order = {name: place for place, name in enumerate(VARIABILITY)}
        if len({row["what"] for row in found}) < 2:
            return {}
        return columns(row | {"order": order.get(str(row["what"]), 9)} for row in found)

    @cached_property
    def controls(self) -> Columns:
        """One row a run and value: side (grounding, fidelity), control, name of the figure."""
        rows = []
        for who, run in self._pairs():
            for side in ("grounding", "fidelity"):
                for a, values in found.items() if isinstance(found := run.controls.get(side), dict) else ():
                    for b, value in values.items() if isinstance(values, dict) else ():
                        control, name = (a, b) if side == "grounding" else (b, a)
                        cell: Row = {
                            "side": side,
                            "control": str(control),
                            "key": f"{side}/{name}",
                            "value": number(value),
                        }
                        rows += [who.row() | cell] if cell["value"] is not None else []
        return columns(rows)

    @cached_property
    def references(self) -> Columns:
        """What the axes are read against: location prior and real against real, a column a figure; of several runs the mean."""
        named = {"prior": "location prior", "real_vs_real": "real against real"}
        found: dict[str, dict[str, list[float]]] = {}
        for row in rows_of(self.controls):
            key, value = str(row["key"]), row["value"]
            if row["control"] in named and isinstance(value, float) and key in (*self.distances, *self.groundings):
                found.setdefault(named[str(row["control"])], {}).setdefault(key, []).append(value)
        return columns(
            {"label": name, **{key: math.fsum(values) / len(values) for key, values in at.items()}}
            for name, at in [*sorted(found.items()), *mechanism.references(self.found)]
        )

    @cached_property
    def published(self) -> Columns:
        """The paper's three models, under the names of figures that are measured as the paper did."""
        rows = []
        for model in ("SDv2", "learnable", "frozen"):
            printed = next(row for row in published(4) if row["model"] == model and row["prompts"] == "MIMIC")
            values = dict(zip(CNR_ORDER[::-1], averages(class_values(table1_column(model, "cnr"))), strict=True))
            values |= {
                f"fidelity/fid_{a}": float(printed[b]) for a, b in (("inception_paper", "fid"), ("xrv224", "fid_xrv"))
            }
            rows.append(
                {"run": f"paper: {model}", "encoder": model if model in ("frozen", "learnable") else "other"} | values
            )
        return columns(rows)

    @cached_property
    def loss(self) -> Columns:
        """Training and validation loss against images, means of equally long stretches."""
        limit = max(20, min(LOSS_POINTS, ALL_LOSS_POINTS // max(1, len(self.found))))
        return columns(
            who.row() | {"part": part, "images": round(images), "loss": loss}
            for who, run in self._pairs()
            for part, key in (("training", "train/loss"), ("validation", "val/loss"))
            for images, loss in reduced(run.logged(key), limit)
        )
