"""The runs of an experiment as two small tables, which outlive the run folders and can be kept beside the text. No torch.

``runs.csv`` has a row a run and evaluation: what was set, and what was measured. ``phrases.csv`` has a row a run and figure
with a column a sample (image and finding), at the end of training: intervals over images need them. Lines of one run do not
depend on those of others, so tables of two machines are merged by reading both. Source: own.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meddiff.common.bounded import parse_json
from meddiff.common.errors import UserError
from meddiff.common.outside import own_file, terminal
from meddiff.common.text_files import read_bytes
from meddiff.phantoms.options import as_before
from meddiff.reports.experiment.measured import is_gain, of_evaluations, of_mechanism
from meddiff.runs import names
from meddiff.runs.folder import Run
from meddiff.runs.tables import read_table, write_table
from meddiff.runs.values import nested, number

RUNS, PHRASES = "runs.csv", "phrases.csv"
#: What tells runs apart, and with which protocol they were measured.
SETTINGS = (
    "base",
    "weights",
    "prompt",
    "confounders",
    "train_images",
    "encoder",
    "rate",
    "unet_rate",
    "seed",
    "protocol",
)
FIRST = ("run", *SETTINGS, "step", "images")
#: Figures of an evaluation that are kept; those of gains in addition.
FIGURES = (
    "fidelity/fd_domain",
    "grounding/macro_cnr",
    "grounding/cnr",
    "grounding/macro_auroc",
    "grounding/macro_top1",
    "grounding/macro_miou",
    "grounding/eos_macro_cnr",
    "grounding/mask_macro_cnr",
    "grounding/confounder_cnr",
    "grounding/own_beats_other",
)
#: Columns of a table of phrases that are kept.
SCORES = ("cnr", "auroc", "top1", "eos_cnr")
#: Between image and finding in the name of a sample's column.
BETWEEN = "|"
#: What a sweep calls the folder of a run: number and digest.
OF_A_SWEEP = re.compile(r"[0-9]{4,}-([0-9a-f]{8})")
Row = dict[str, str]


@dataclass
class Collected:
    """Both tables.

    Attributes:
        runs: (run, images) -> row of ``runs.csv``, cells as text.
        phrases: (run, figure) -> sample -> value.
    """

    runs: dict[tuple[str, int], Row] = field(default_factory=dict)
    phrases: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)

    @property
    def finished(self) -> set[str]:
        """Names of the runs that are in it."""
        return {run for run, _ in self.runs}

    def update(self, other: "Collected") -> None:
        """Take the runs of ``other`` as well; of a run that is in both, its rows count."""
        self.runs = {key: row for key, row in self.runs.items() if key[0] not in other.finished} | other.runs
        self.phrases = {key: row for key, row in self.phrases.items() if key[0] not in other.finished} | other.phrases


def collect(run: Run) -> Collected:
    """The rows of one finished run.

    Raises:
        UserError: it has not finished, says nothing of its text encoder, or was never evaluated.
    """
    finished = run.path / names.FINISHED
    try:
        images = int(parse_json(read_bytes(finished))["images"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, UserError):
        raise UserError(f"{run.path} has not finished (no {names.FINISHED}): let it end, or leave it out.") from None
    name, settings = name_of(run), settings_of(run, images)
    if not settings["encoder"]:
        raise UserError(f"{run.path} does not say whether its text encoder was frozen: it is none of the experiment's.")
    found, mechanism = Collected(), of_mechanism(run)
    for evaluation in run.evaluations:
        kept = {key: value for key, value in evaluation.values.items() if key in FIGURES or is_gain(key)}
        more = of_evaluations(run, images) if evaluation.images == images else {}
        more |= mechanism.get(evaluation.images, {})
        row = {**settings, "run": name, "step": evaluation.step, "images": evaluation.images, **kept, **more}
        found.runs[name, evaluation.images] = {key: _text(value) for key, value in row.items()}
    if (name, images) not in found.runs:
        raise UserError(
            f"{run.path} was not evaluated after its last image ({images:,}): nothing of it can be compared."
        )
    for key, rows in _phrases(run.phrases_at(images)).items():
        found.phrases[name, key] = rows
    return found


def name_of(run: Run) -> str:
    """``SWEEP/DIGEST``: of a sweep's run the digest of its parameters is the same on every machine, its number is not.

    Example:
        >>> name_of(Run(Path("runs/mine/20260101-120000"))), name_of(Run(Path("runs/mine/0012-9f3a01bc")))
        ('mine/20260101-120000', 'mine/9f3a01bc')
    """
    folder = run.path.resolve()
    numbered = OF_A_SWEEP.fullmatch(folder.name)
    return terminal(f"{run.sweep or folder.parent.name}/{numbered[1] if numbered else folder.name}")


def settings_of(run: Run, images: int) -> dict[str, str | float | int]:
    """What tells it from other runs.

    ``protocol`` is a digest of what was measured on which images: figures of two protocols do not compare. The correlation
    of confounders is no part of it, since none has any in held-out images.
    """
    model, data = run.facts.section("model")[1], run.facts.section("data")[1]
    unet_rate = number(model.get("learning_rate"))
    own_rate = number(model.get("text_encoder_learning_rate"))
    unet = model.get("unet")
    gamma = number(model.get("min_snr_gamma"))
    encoder = run.facts.encoder
    phantom = nested(data, "phantom")
    cohort = as_before(phantom) if isinstance(phantom, dict) else {}
    cohort.pop("confounders", None)
    protocol = {
        "cohort": cohort,
        "vae": data.get("vae"),
        "grounding": [nested(run.config, "grounding", one) for one in ("split", "samples", "timesteps", "ema", "seed")],
        "fidelity": [nested(run.config, "fidelity", one) for one in ("split", "samples", "weights", "sampling", "ema")],
        "sampling": model.get("sampling"),
    }
    return {
        "base": terminal(Path(unet).name) if isinstance(unet, str) else "drawn",
        "weights": "uniform" if gamma is None else f"min-SNR {gamma:g}",
        "prompt": terminal(run.facts.prompt),
        "confounders": strength(nested(data, "phantom", "confounders")),
        "train_images": images,
        "encoder": encoder,
        "rate": 0.0 if encoder == "frozen" else (own_rate if own_rate is not None else unet_rate or 0.0),
        "unet_rate": unet_rate or 0.0,
        "seed": run.facts.seed,
        "protocol": hashlib.sha256(json.dumps(protocol, sort_keys=True, default=str).encode()).hexdigest()[:8],
    }


def strength(confounders: object) -> str:
    """The correlation that all confounders have; each with its own where they differ, "none" without any.

    Example:
        >>> strength(["tube:pneumothorax:0.9", "pacemaker:cardiomegaly:0.90"]), strength(["tube:pneumothorax"]), strength([])
        ('0.9', 'tube:pneumothorax', 'none')
    """
    listed = [str(one) for one in confounders] if isinstance(confounders, list) else []
    found = {number(one.rpartition(":")[2]) for one in listed}
    (one,) = found if len(found) == 1 else (None,)
    return f"{one:g}" if one is not None else terminal(" ".join(listed)) or "none"


def _phrases(table: Sequence[Mapping[str, str]]) -> dict[str, dict[str, float]]:
    """Score -> sample -> value: the mean of the phrases of one finding in one image, to three decimals."""
    gathered: dict[str, dict[str, list[float]]] = {score: {} for score in SCORES}
    for row in table:
        sample = terminal(row.get("key", "") + BETWEEN + row.get("class", ""))
        for score in SCORES:
            value = number(row.get(score))
            if value is not None:
                gathered[score].setdefault(sample, []).append(value)
    return {
        score: {sample: round(sum(values) / len(values), 3) for sample, values in found.items()}
        for score, found in gathered.items()
        if found
    }


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read(folder: Path) -> Collected:
    """Both tables of a folder; empty where there are none.

    Raises:
        UserError: a file that is none of these tables.
    """
    found = Collected()
    try:
        for row in read_table(folder / RUNS):
            found.runs[row["run"], int(row["images"])] = {name: cell for name, cell in row.items() if cell}
        for row in read_table(folder / PHRASES):
            values = {name: value for name, cell in row.items() if (value := number(cell)) is not None}
            found.phrases[row["run"], row["figure"]] = values
    except (KeyError, ValueError, csv.Error) as error:
        raise UserError(
            f"{folder} holds a table that is not one of the experiment's ({error}): take it from version control again."
        ) from error
    return found


def write(folder: Path, collected: Collected) -> list[Path]:
    """Write both, sorted, each whole or not at all."""
    paths = [own_file(folder / RUNS), own_file(folder / PHRASES)]
    write_table(paths[0], [collected.runs[key] for key in sorted(collected.runs)], FIRST)
    rows = [
        {"run": run, "figure": figure, **collected.phrases[run, figure]} for run, figure in sorted(collected.phrases)
    ]
    write_table(paths[1], rows, ("run", "figure"))
    return paths


def merged(tables: Iterable[Collected]) -> Collected:
    """Those of several machines; of a run that several have, the last one's rows count."""
    found = Collected()
    for one in tables:
        found.update(one)
    return found
