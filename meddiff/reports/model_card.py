"""The model card of an export: what the weights are, what they were trained on, and their numbers with their controls.

A card may be published. So it is made of what is listed here and of nothing else of a run: numbers, and words of a fixed
vocabulary; no prompt, caption, key, path, or name that a user gave. Source: own; the front matter is Hugging Face's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meddiff.common.outside import markdown_cell
from meddiff.reports.page.wording import CONTROLS, EXTRACTORS, count_text, fidelity_keys, label, value_text
from meddiff.runs.folder import Evaluation, Run
from meddiff.runs.values import nested, number
from meddiff.shards.access import TITLES

#: Settings of a run that are numbers, switches or words of a fixed list.
SETTINGS = (
    ("model", "init_args", "learning_rate"),
    ("model", "init_args", "text_encoder_learning_rate"),
    ("model", "init_args", "learning_rate_schedule"),
    ("model", "init_args", "weight_decay"),
    ("model", "init_args", "warmup_steps"),
    ("model", "init_args", "min_snr_gamma"),
    ("model", "init_args", "caption_dropout"),
    ("model", "init_args", "ema_decay"),
    ("data", "init_args", "batch_size"),
    ("trainer", "max_steps"),
    ("trainer", "accumulate_grad_batches"),
    ("trainer", "gradient_clip_val"),
    ("trainer", "precision"),
    ("trainer", "num_nodes"),
    ("trainer", "devices"),
)
#: The words that a setting may be.
WORDS = frozenset(
    {"constant", "cosine", "auto", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true"}
    | {"scaled_linear", "linear", "squaredcos_cap_v2", "leading", "trailing", "linspace", "epsilon", "v_prediction"}
    | {"pndm", "ddim", "dpm++"}
)
#: What may stand as the name of a cohort.
COHORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
GROUNDING = ("macro_cnr", "cnr", "macro_auroc", "auroc", "macro_top1", "top1", "macro_miou", "own_beats_other")
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class DataFacts:
    """What a card says of the data.

    Attributes:
        cohorts: (name, access) of all that the run reads, the training data first.
        manifest: sha256 of their ``manifest.json``; "" where it is not there any more.
    """

    cohorts: Sequence[tuple[str, str]]
    manifest: str = ""


@dataclass(frozen=True)
class ModelFacts:
    """What a card says of the weights; whoever writes them knows it.

    Attributes:
        images: trained on.
        frozen: whether the text encoder was.
        ema: the averaged weights, else the raw ones.
        half: stored as float16.
        single_file: the original layout instead of a folder.
        schedule: of noise, diffusers' names.
        sampling: sampler, steps, guidance_scale.
        parameters: part -> how many.
        digests: part -> sha256.
        resolution: side of an image in pixels.
        tokens: longest text.
        masked: whether its U-Net attends to no padding, which diffusers' pipeline does not do.
    """

    images: int
    frozen: bool
    ema: bool
    half: bool
    single_file: bool
    schedule: Mapping[str, object]
    sampling: Mapping[str, object]
    parameters: Mapping[str, int]
    digests: Mapping[str, str]
    resolution: int
    tokens: int
    masked: bool = False


#: The one thing that a folder cannot tell diffusers' pipeline.
MASKED = (
    "**Its U-Net attends to no padding; diffusers' pipeline lets it,** and draws other images than `lightning sample`. Hand "
    "the U-Net the attention mask of the texts (`encoder_attention_mask`), or load the folder in meddiff-tradeoff."
)


def model_card(model: ModelFacts, data: DataFacts | None, run: Run | None) -> str:
    """The text of ``README.md``.

    Args:
        data: None where it is not known: the weights then count as of a credentialed cohort.
        run: None for a checkpoint that lies in no run folder.
    """
    tower = "frozen" if model.frozen else "learnable"
    tags = ["diffusers", "stable-diffusion", "text-to-image", "meddiff-tradeoff"]
    front = ["library_name: diffusers", "pipeline_tag: text-to-image", "tags:", *(f"- {tag}" for tag in tags)]
    parts = [
        "\n".join(["---", *front, "---"]),
        f"# Text-to-image latent diffusion, text encoder {tower}",
        f"Trained on {count_text(model.images)} images with the text encoder {tower}, and exported by meddiff-tradeoff as "
        + ("one file in Stable Diffusion's original layout." if model.single_file else "a diffusers pipeline.")
        + " Not for diagnosis: images drawn by it show nobody, and its maps are research.",
        _warning(data),
        "## Use",
        _use(model),
        "## Weights",
        _table(("what", "value"), _weights(model, run)),
        "## Data",
        _table(("what", "value"), _data(data)),
        "## Configuration",
        _table(("setting", "value"), _settings(model, run)),
        "## Numbers",
        _numbers(model, run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _warning(data: DataFacts | None) -> str:
    """What an agreement may forbid; "" for public cohorts."""
    if data is None:
        return (
            "> **Before you share this:** what it was trained on is not known here. Where a data use agreement forbids to "
            "share models trained on its data, these weights may not leave your institution."
        )
    names = list(dict.fromkeys(_cohort(name) for name, access in data.cohorts if access != "public"))
    if not names:
        return ""
    return (
        f"> **Before you share this:** {', '.join(names)} is credentialed. Weights trained on it may not be shared where its "
        f"data use agreement forbids it: a model can remember what it was shown. This folder holds no text, key, picture "
        f"or path of it."
    )


def _cohort(name: str) -> str:
    return TITLES.get(name, name) if COHORT.fullmatch(name) else "a cohort"


def _use(model: ModelFacts) -> str:
    steps, scale = model.sampling.get("steps"), model.sampling.get("guidance_scale")
    if model.single_file:
        lines = [
            "from diffusers import StableDiffusionPipeline",
            'pipe = StableDiffusionPipeline.from_single_file("model.safetensors", config="A_FOLDER_EXPORTED_FROM_IT")',
        ]
    else:
        lines = ["from diffusers import DiffusionPipeline", 'pipe = DiffusionPipeline.from_pretrained("THIS_FOLDER")']
    draw = f'image = pipe("PROMPT", num_inference_steps={steps}, guidance_scale={scale}).images[0]'
    return "\n".join(["```python", *lines, draw, "```"]) + (f"\n\n{MASKED}" if model.masked else "")


def _weights(model: ModelFacts, run: Run | None) -> list[tuple[str, str]]:
    seed = run.config.get("seed_everything") if run is not None else None
    return [
        ("weights", "EMA (averaged over training)" if model.ema else "raw (not averaged)"),
        ("stored as", "float16" if model.half else "float32"),
        ("text encoder", "frozen" if model.frozen else "learnable, trained with the U-Net"),
        ("longest text", f"{model.tokens} tokens"),
        ("images trained on", count_text(model.images)),
        ("image", f"{model.resolution} x {model.resolution} pixels"),
        ("seed", str(seed) if isinstance(seed, int) and not isinstance(seed, bool) else "not known"),
        *((f"parameters, {part}", count_text(number)) for part, number in model.parameters.items()),
        *((f"sha256, {part}", f"`{digest}`") for part, digest in model.digests.items()),
    ]


def _data(data: DataFacts | None) -> list[tuple[str, str]]:
    if data is None:
        return [("cohort", "not known"), ("sha256 of manifest.json", "not known")]
    named = [(_cohort(name), access if access == "public" else "credentialed") for name, access in data.cohorts]
    rows = [
        ("cohort" if not place else "also read", f"{name} ({access})") for place, (name, access) in enumerate(named)
    ]
    return [*rows, ("sha256 of manifest.json", f"`{data.manifest}`" if data.manifest else "not known")]


def _settings(model: ModelFacts, run: Run | None) -> list[tuple[str, str]]:
    rows = [(name, _value(value)) for name, value in sorted(model.schedule.items())]
    rows += [(f"sampling.{name}", _value(value)) for name, value in model.sampling.items()]
    for names in SETTINGS if run is not None else ():
        value = nested(run.config, *names) if run is not None else None
        if (text := _value(value)) and value is not None:
            rows.append((".".join(name for name in names if name != "init_args"), text))
    return rows


def _value(value: object) -> str:
    """A number, a switch or one of :data:`WORDS`; "" for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value}" if number(value) is not None else ""
    return value if isinstance(value, str) and value in WORDS else ""


def _numbers(model: ModelFacts, run: Run | None) -> str:
    """The newest evaluation of the run up to these weights, each number above what it must be read against."""
    rows = [row for row in run.evaluations if row.images <= model.images] if run is not None else []
    grounding = [f"grounding/{name}" for name in GROUNDING]
    evaluation = rows[-1] if rows else None
    if run is None or evaluation is None:
        return (
            "CNR, AUROC, Top-1 (pointing game) and image distances: not measured (`lightning evaluate`). Nothing is known "
            "about how good images or maps of these weights are."
        )
    known = [key for key in grounding if key in evaluation.values]
    distances = [key for key in fidelity_keys(evaluation.values) if key.partition("_")[2] in EXTRACTORS]
    others = [key for key in ("fidelity/ms_ssim", "fidelity/classifier_auc") if key in evaluation.values]
    same = evaluation.images == model.images and not model.ema
    whose = "**these weights**" if same else f"**the raw weights after {count_text(evaluation.images)} images**"
    parts = [
        f"Measured while training, on the raw weights after {count_text(evaluation.images)} images"
        + ("." if evaluation.images == model.images else f" (these weights: {count_text(model.images)}).")
        + (" Of the averaged weights exported here nothing was measured." if model.ema else "")
        + " CNR and AUROC are of attention maps of the prompted word; distances grow as fewer images are compared.",
        _room(run, evaluation, "grounding", known, whose)
        or "Grounding (CNR, AUROC, Top-1 (pointing game)): not measured, and neither are its controls.",
        _room(run, evaluation, "fidelity", [*distances, *others], whose) or "Image distances (FID, KID): not measured.",
    ]
    return "\n\n".join(parts)


def _room(run: Run, evaluation: Evaluation, room: str, keys: Sequence[str], whose: str) -> str:
    """One table: the evaluation under the name ``whose``, then each control; "" where nothing was measured."""
    if not keys:
        return ""
    short = [key.partition("/")[2] for key in keys]
    rows = [(whose, *(value_text(evaluation.values[key]) for key in keys))]
    found = run.controls.get(room)
    controls = found if isinstance(found, dict) else {}
    for control, meaning in CONTROLS.items():
        # of grounding: control -> name -> number; of fidelity: name -> control -> number
        values = [nested(controls, *((control, name) if room == "grounding" else (name, control))) for name in short]
        if any(number(value) is not None for value in values):
            cells = (value_text(number(v)) if number(v) is not None else NOT_MEASURED for v in values)
            rows.append((meaning, *cells))
    table = _table(("", *(label(key) for key in keys)), rows)
    n = evaluation.values.get(f"{room}/n")
    unit = "phrases" if room == "grounding" else "images"
    of = f"{room}{f', N = {count_text(n)} {unit}' if n is not None else ''}"
    if len(rows) == 1:
        what = "A CNR" if room == "grounding" else "A distance"
        return f"{of}. **Controls: {NOT_MEASURED}. {what} without its controls says nothing: measure them first.**\n\n{table}"
    return f"{of}, above what it must be read against:\n\n{table}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)])


def _cell(text: str) -> str:
    """Digests keep their code marks; everything else goes through the door of Markdown cells."""
    return text if re.fullmatch(r"`[0-9a-f]{64}`", text) else markdown_cell(text)
