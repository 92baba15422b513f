"""A benchmark's published rows beside ours, on the axes where both mean the same; every other axis is refused with its reason.

An axis is a figure on features of one extractor. It is shared where N, features and data of both are known and the same, and
ours was drawn as one of the benchmark's own models was. The bias of a Frechet distance falls by half as N doubles, and each
step between an image and its features moves it more than models differ: without that, two numbers beside each other say
nothing.
Source: CheXGenBench (2025), values as its repository shows them, facts only, in ``published/chexgenbench.csv``
(spec/evaluation_beyond.md sections 1 and 4); the rule own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meddiff.common.csv_rows import csv_records
from meddiff.common.errors import UserError
from meddiff.common.text_files import read_text
from meddiff.reports.paper.cells import Cell, Table
from meddiff.reports.paper.image_tables import distances, over_runs
from meddiff.reports.paper.pooling import Model
from meddiff.reports.paper.published import FOLDER, printed
from meddiff.runs.evaluation_folder import EvaluationFolder
from meddiff.runs.values import nested, number

NAME, FILE = "CheXGenBench", FOLDER / "chexgenbench.csv"
CONFIG = "configs/evaluation/chexgenbench.yaml"
COLUMNS = ("figure", "class", "model", "value", "n", "extractor", "data", "steps", "guidance_scale")
#: Figure -> (what it is, part of `lightning evaluate`, decimals); the part is where ours stands.
FIGURES = {
    "fd": ("Frechet distance", "fidelity", 3),
    "kid": ("kernel distance", "fidelity", 3),
    "precision": ("precision, k = 5", "coverage", 3),
    "recall": ("recall, k = 5", "coverage", 3),
    "density": ("density, k = 5", "coverage", 3),
    "coverage": ("coverage, k = 5", "coverage", 3),
    "alignment": ("cosine of image and prompt", "alignment", 3),
}
#: Figure of the benchmark that has no twin here -> (what it is, why).
NOT_HERE = {
    "fd_class": (
        "the Frechet distance by class",
        "its bias follows how many images a class has, which is not published; the kernel distance by class of "
        "`lightning evaluate coverage` has no such bias",
    ),
    "reidentification": ("the share of re-identified patients", "the network that judges it is not part of this suite"),
    "latent_distance": (
        "the distance to the image of the same prompt in features",
        "each image is compared with one training image there and with all of them in `lightning evaluate copies`",
    ),
    "pixel_distance": (
        "the distance to the image of the same prompt in pixels",
        "bytes were subtracted as bytes, so that differences wrap around at 256",
    ),
    "copies_counted": ("the number of copies", "the threshold that counts them is not published"),
}


@dataclass(frozen=True)
class Published:
    """What is printed on one axis: model -> row of the file; what all rows of it agree in."""

    rows: Mapping[str, Mapping[str, str]]
    extractor: str
    n: str
    data: str
    ways: frozenset[tuple[float, float]]


def read_benchmark(path: Path = FILE) -> dict[str, Published]:
    """Figure -> its published rows without class.

    Args:
        path: csv with :data:`COLUMNS`; an empty ``n`` was not published.

    Raises:
        UserError: no such file, a missing column, a figure that is none, a value that is no number, or rows of one figure
            that differ in N, features or data.
    """
    rows = [{name: cell or "" for name, cell in row.items()} for row in csv_records(read_text(path).splitlines())]
    if missing := [column for column in COLUMNS if not rows or column not in rows[0]]:
        raise UserError(f"{path} has no column {missing[0]!r}: copy the columns of {FILE.name}.")
    known = {**FIGURES, **NOT_HERE}
    found: dict[str, list[dict[str, str]]] = {}
    for line, row in enumerate(rows, 2):
        if row["figure"] not in known:
            raise UserError(
                f"{path}, row {line} has the figure {row['figure']!r}; there are {', '.join(known)}: correct the row."
            )
        for column in ("value", "n", "steps", "guidance_scale"):
            if number(row[column]) is None and (row[column] or column == "value"):
                raise UserError(
                    f"{path}, row {line}, column {column!r} is {row[column]!r} and no number: correct the row."
                )
        found.setdefault(row["figure"], []).append(row)
    return {figure: _published(figure, some, path) for figure, some in found.items()}


def _published(figure: str, rows: Sequence[dict[str, str]], path: Path) -> Published:
    for column in ("n", "extractor", "data"):
        if len(values := sorted({row[column] for row in rows})) > 1:
            raise UserError(
                f"{path}: rows of {figure!r} differ in {column!r} ({' and '.join(map(repr, values[:2]))}), so that they are no "
                "axis: keep those of one."
            )
    ways = {
        (steps, scale)
        for row in rows
        if (steps := number(row["steps"])) is not None and (scale := number(row["guidance_scale"])) is not None
    }
    first = rows[0]
    return Published(
        {row["model"]: row for row in rows}, first["extractor"], first["n"], first["data"], frozenset(ways)
    )


def benchmark_tables(models: Sequence[Model], benchmark: Mapping[str, Published]) -> list[Table]:
    """Ours and the published rows on the shared axes, if there are any, and the refused axes, one sentence each.

    Args:
        models: evaluated ones.
        benchmark: of :func:`read_benchmark`.
    """
    refused = Table("benchmark_refused", f"{NAME}: axes on which nothing is compared", labels=2)
    refused.columns = ["axis", "refused for"]
    shared: dict[str, list[Model]] = {}
    for figure, published in benchmark.items():
        if figure in NOT_HERE:
            what, why = NOT_HERE[figure]
            refused.add((what, "all"), [])
            refused.notes.append(f"Refused: {what}, because {why}.")
            continue
        alike: dict[tuple[str, ...], list[str]] = {}
        for model in models:
            if reasons := why_not(model, figure, published):
                alike.setdefault(tuple(reasons), []).append(model.label)
            else:
                shared.setdefault(figure, []).append(model)
        for clauses, labels in alike.items():
            refused.add((_axis(figure, published), ", ".join(labels)), [])
            refused.notes.append(
                f"Refused: the {FIGURES[figure][0]} of {', '.join(labels)}, because {'; '.join(clauses)}."
            )
    found = [_shared_table(models, benchmark, shared)] if shared else []
    return [*found, refused] if refused.rows else found


def _shared_table(
    models: Sequence[Model], benchmark: Mapping[str, Published], shared: Mapping[str, Sequence[Model]]
) -> Table:
    table = Table("benchmark", f"{NAME}: published rows beside measured ones")
    table.columns = ["model", *(f"{_axis(figure, benchmark[figure])}, N = {benchmark[figure].n}" for figure in shared)]
    for model in models:
        for control, label in ((False, model.label), (True, f"control: real images of {model.label}")):
            cells = [
                _ours(model, figure, benchmark[figure].extractor, control) if model in some else Cell()
                for figure, some in shared.items()
            ]
            if any(cell.value is not None for cell in cells):
                table.add((label,), cells)
    for name in dict.fromkeys(name for figure in shared for name in benchmark[figure].rows):
        rows = [benchmark[figure].rows.get(name, {}) for figure in shared]
        table.add((f"{NAME}: {name}",), [printed(row.get("value")) for row in rows])
    table.notes = [
        "There, real images with the same caption count once and unreadable files are black images; here, all images count and "
        "an unreadable file is none.",
        *(model.describe() for model in models),
    ]
    return table


def why_not(model: Model, figure: str, published: Published) -> list[str]:
    """Why the axis is not shared with a model, one clause each; [] where it is."""
    part = FIGURES[figure][1]
    measured = {name: n for one in model.evaluations for name, n in _measured(one, figure).items()}
    if published.extractor not in measured:
        if not measured:
            needs = " --alignment.biovil_t FOLDER" if part == "alignment" else ""
            return [f"it was not measured (`lightning evaluate {part} -c {CONFIG}{needs}`)"]
        others = " and ".join(sorted(measured))
        return [
            f"it is measured on features of {others}, and published on those of {published.extractor} "
            f"(`lightning evaluate {part} -c {CONFIG}`)"
        ]
    found = []
    sizes = sorted({n for one in model.evaluations for n in [_measured(one, figure).get(published.extractor)] if n})
    ours = " and ".join(f"{n:g}" for n in sizes)
    if not published.n:
        found.append(f"its N is {ours}, and the published one is not known")
    elif sizes != [number(published.n)]:
        found.append(f"its N is {ours}, and the published one is {published.n}")
    cohorts = sorted({str(one.about.get("cohort", "")) for one in model.evaluations})
    if cohorts != [published.data]:
        found.append(f"its data are {' and '.join(cohorts)}, and the published ones {published.data}")
    ways = [nested(one.about, "parts", part, "sampling") for one in model.evaluations]
    for way in ways:
        if published.ways and (said := _unlike(way, published.ways)):
            found.append(said)
            break
    return found


def _unlike(way: object, ways: frozenset[tuple[float, float]]) -> str:
    """How ours was drawn, where no published model was drawn so; "" where one was."""
    if not isinstance(way, dict):
        return "it was drawn with the model's own settings, which its record does not name (set sampling)"
    steps, scale = (number(way.get(name)) for name in ("steps", "guidance_scale"))
    if (steps, scale) in ways:
        return ""
    return f"it was drawn in {way.get('steps')} steps at guidance {way.get('guidance_scale')}, as none of the published ones"


def _measured(evaluation: EvaluationFolder, figure: str) -> dict[str, float]:
    """Extractor -> N of what an evaluation has of a figure."""
    part = FIGURES[figure][1]
    if part == "fidelity":
        rows = [row for row in evaluation.table("fidelity") if not row.get("control")]
        named = [(row.get("metric", ""), row) for row in rows]
        prefix = f"{figure}_"
        some = {metric.removeprefix(prefix): row for metric, row in named if metric.startswith(prefix)}
    else:
        some = {name: row for name, row, _ in _by_features(evaluation, figure, "")}
    return {name: n for name, row in some.items() if (n := number(row.get("n"))) is not None}


def _ours(model: Model, figure: str, extractor: str, control: bool) -> Cell:
    """Mean over seeds of a model, or of the real images that stand beside it."""
    part, digits = FIGURES[figure][1:]
    if part == "fidelity":
        kind = "real_vs_real" if control else ""
        values = [distances(one, f"{figure}_{extractor}", kind) for one in model.evaluations]
    else:
        kind = {"coverage": "held_out", "alignment": "real"}[part] if control else ""
        values = [
            [value for name, _, value in _by_features(one, figure, kind) if name == extractor]
            for one in model.evaluations
        ]
    return over_runs(values, digits) if any(values) else Cell()


def _by_features(evaluation: EvaluationFolder, figure: str, control: str) -> list[tuple[str, dict[str, str], float]]:
    """(extractor, row, value) of a figure that has a column of its own, of drawn images or of a control."""
    part = FIGURES[figure][1]
    column = "cosine" if part == "alignment" else figure
    rows = [row for row in evaluation.table(part) if row.get("control", "") == control]
    return [
        ("biovil_t" if part == "alignment" else row.get("extractor", ""), row, value)
        for row in rows
        if (value := number(row.get(column))) is not None
    ]


def _axis(figure: str, published: Published) -> str:
    return f"{FIGURES[figure][0]}, {published.extractor}"
