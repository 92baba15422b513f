"""``lightning evaluate PART``: every number of the paper's tables, and their controls, from one checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from meddiff.cli.libraries import read_metrics
from meddiff.cli.named_model import add_model_arguments, leave_point, open_named, reading
from meddiff.cli.parsing import SentenceParser
from meddiff.common.errors import UserError
from meddiff.common.locks import locked
from meddiff.common.outside import terminal
from meddiff.common.progress import doing
from meddiff.common.targets import check_folder

if TYPE_CHECKING:
    from meddiff.evaluation.measurement import Measurement
    from meddiff.runs.kept_checkpoints import Kept
    from meddiff.runs.opened import Opened
    from meddiff.shards.dataset import LatentShardsDataset


@dataclass(frozen=True)
class Part:
    """One measurement as the command knows it.

    Attributes:
        text: what it measures.
        options: the group of options it reads; several parts may share one.
    """

    text: str
    options: str


PARTS = {
    "grounding": Part("phrase grounding: CNR, AUROC, Top-1 (pointing game), IoU (Tables 1, 3, 7)", "grounding"),
    "words": Part("phrase grounding of every single word (Table 6), out of the same pass", "grounding"),
    "fidelity": Part("Frechet and kernel distances of drawn to real images (Table 4)", "fidelity"),
    "diversity": Part("MS-SSIM between images drawn for one prompt (Table 4)", "diversity"),
    "classifier": Part("AUROC of a classifier on drawn images (Table 5)", "classifier"),
    "coverage": Part("whether drawn images cover the population: precision, recall, classes, diversity", "coverage"),
    "copies": Part("whether drawn images are training images, in pixels and in features", "copies"),
    "absent": Part("whether maps are silent when a finding is absent; scores by the size of the lesion", "absent"),
    "alignment": Part("whether drawn images show what their prompts say, by a classifier", "alignment"),
    "utility": Part("whether classifiers trained on drawn images are worth something on real ones", "utility"),
    "coco": Part("grounding of MS-COCO captions on instance masks (Table 2)", "coco"),
    "controls": Part("what a grounding figure must be read against: priors, absent findings, twins", "controls"),
    "mechanism": Part(
        "where meaning goes when it leaves the word, by training step: attention, states, probes", "mechanism"
    ),
    "rivals": Part(
        "every published way to read a map out of the same model, with its price and its controls", "rivals"
    ),
    "schedules": Part("what lists of timesteps do to drawn images and to grounding", "schedules"),
    "prototypes": Part("what prototypes are about, where and when they are drawn, what they are worth", "prototypes"),
    "shortcut": Part("how much a finding's edit moves its confounder, beside a model trained without bias", "shortcut"),
}
#: "all" are the paper's tables; it leaves out what its cohort does not allow.
BESIDE = ("controls", "mechanism", "rivals", "schedules", "prototypes", "shortcut")
#: Parts that draw images.
DRAWING = ("fidelity", "diversity", "classifier", "alignment", "utility", "schedules", "shortcut")
#: Parts that say before they begin what they cost.
TOLD = ("rivals", "utility", "schedules", "prototypes", "shortcut")
ALIASES = {"grounding": ("grounding", "words"), "all": tuple(name for name in PARTS if name not in BESIDE)}
#: Parts of natural images, and parts that need radiology's phrases and labels.
COCO, RADIOLOGY = ("coco",), ("grounding", "words", "classifier", "absent", "alignment", "utility")
#: Parts that ask a model for words, or for what a prompt says.
BY_WORDS = (*RADIOLOGY, *COCO, "diversity", "controls", "mechanism", "rivals")
#: Parts that compare with training images.
TRAINED = ("coverage", "copies", "utility")


def main(arguments: list[str]) -> int:
    """Parse and run; returns the exit code.

    Raises:
        UserError: unknown part, nothing to evaluate, or results of other settings are in the way.
    """
    names = [*PARTS, "all"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: lightning evaluate PART --run RUN | --ckpt FILE | --model FOLDER_OR_FILE [-c FILE] [options]\n")
        print("\n".join(f"  {name:<12}{part.text}" for name, part in PARTS.items()))
        beside = f"{', '.join(BESIDE[:-1])} and {BESIDE[-1]}"
        print(f"  all         all of them but {beside}\n\noptions: lightning evaluate PART --help")
        return 0
    place = next((i for i, argument in enumerate(arguments) if argument in names), None)
    if place is None:
        raise UserError(f"No part {arguments[0]!r} to evaluate: there are {', '.join(names)}.")
    name, rest = arguments[place], arguments[:place] + arguments[place + 1 :]
    parts = ALIASES.get(name, (name,))
    read_metrics("evaluate")
    return evaluate(parts, parse(name, parts, rest), choose=name == "all")


def parse(name: str, parts: Sequence[str], arguments: list[str]) -> Namespace:
    """The options of ``parts``, instantiated."""
    parser = SentenceParser(prog=f"lightning evaluate {name}", description="Numbers of the paper's tables.")
    parser.add_argument("-c", "--config", action="config", help="YAML file with any of the options below.")
    parser.add_argument("--run", type=str | None, default=None, help="Run folder: its newest checkpoint is evaluated.")
    if "mechanism" in parts:
        text = "Checkpoint files of one run; by default all that it kept."
        parser.add_argument("--ckpt", type=str, nargs="+", default=None, help=text)
    else:
        parser.add_argument("--ckpt", type=str | None, default=None, help="Checkpoint file.")
    add_model_arguments(parser)
    parser.add_argument("--out", type=str | None, default=None, help="Folder; RUN/evaluation/<images> by default.")
    parser.add_argument("--shards", type=str | None, default=None, help="Evaluate on these shards, not the run's.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    if "prototypes" in parts:
        text = "Run folder of a prior over activations: pictures are also drawn without any image."
        parser.add_argument("--prior", type=str | None, default=None, help=text)
    if "shortcut" in parts:
        text = "Run folder of the same model trained on balanced data; without it there is no index."
        parser.add_argument("--balanced", type=str | None, default=None, help=text)
    from meddiff.cli.evaluate_options import option_classes

    classes = option_classes()
    for group in dict.fromkeys(PARTS[part].options for part in parts):
        parser.add_class_arguments(classes[group], group)
        if group == "grounding":  # the short form is for callbacks
            parser.set_defaults({"grounding.full": True})
    return parser.instantiate_classes(parser.parse_args(arguments))


def measurements(
    parts: Sequence[str], options: Namespace, run: "Opened", kept: Sequence["Kept"] = ()
) -> dict[str, "Measurement"]:
    """The measurements of ``parts`` of a run.

    Args:
        kept: the checkpoints that are named, where several may be.
    """
    from meddiff.cli.controls import control_networks
    from meddiff.cli.mechanism import mechanism_of
    from meddiff.cli.prototypes import prototypes_of, shortcut_of
    from meddiff.evaluation.absent import Absent
    from meddiff.evaluation.alignment import Alignment
    from meddiff.evaluation.classifier import Classifier
    from meddiff.evaluation.coco import Coco
    from meddiff.evaluation.controls import Controls
    from meddiff.evaluation.copies import Copies
    from meddiff.evaluation.coverage import Coverage
    from meddiff.evaluation.diversity import Diversity
    from meddiff.evaluation.fidelity import Fidelity
    from meddiff.evaluation.grounding import Grounding
    from meddiff.evaluation.rivals import Rivals
    from meddiff.evaluation.schedules import Schedules
    from meddiff.evaluation.utility import Utility
    from meddiff.evaluation.words import Words

    def train() -> "LatentShardsDataset | None":
        return split_with_samples(run, run.data.train_split)

    makers: dict[str, Callable[[], Measurement]] = {
        "grounding": lambda: Grounding(options["grounding"], show_progress=True),
        "words": lambda: Words(options["grounding"], show_progress=True),
        "fidelity": lambda: Fidelity(options["fidelity"], show_progress=True),
        "diversity": lambda: Diversity(options["diversity"], show_progress=True),
        "classifier": lambda: Classifier(options["classifier"], show_progress=True),
        "coverage": lambda: Coverage(options["coverage"], train(), show_progress=True),
        "copies": lambda: Copies(options["copies"], train(), show_progress=True),
        "absent": lambda: Absent(options["absent"], train(), show_progress=True),
        "alignment": lambda: Alignment(options["alignment"], show_progress=True),
        "utility": lambda: Utility(
            options["utility"], train(), split_with_samples(run, options["utility"].validation), show_progress=True
        ),
        "coco": lambda: Coco(options["coco"], show_progress=True),
        "controls": lambda: Controls(
            options["controls"], control_networks(run, options["controls"]), show_progress=True
        ),
        "mechanism": lambda: mechanism_of(run, options, kept),
        "rivals": lambda: Rivals(options["rivals"], train(), show_progress=True),
        "schedules": lambda: Schedules(
            options["schedules"], split_with_samples(run, options["schedules"].grounding), show_progress=True
        ),
        "prototypes": lambda: prototypes_of(run, options),
        "shortcut": lambda: shortcut_of(run, options),
    }
    return {part: makers[part]() for part in parts}


def split_with_samples(run: "Opened", name: str) -> "LatentShardsDataset | None":
    """A split of the cohort, None where it has no such."""
    return run.data.dataset(name) if run.data.has_split(name) else None


def evaluate(parts: Sequence[str], options: Namespace, choose: bool = False) -> int:
    """Run ``parts`` one after the other; each leaves its files before the next begins.

    Args:
        choose: leave out the parts that the cohort does not allow.
    """
    from meddiff.cli.mechanism import several_checkpoints
    from meddiff.cli.prototypes import leave_pictures
    from meddiff.cli.told import show, tell_cost, without_utility
    from meddiff.evaluation.provenance import model_digest, split_digest
    from meddiff.evaluation.ranks import Ranks
    from meddiff.runs.earlier_results import refuse_other_results
    from meddiff.runs.evaluations import EvaluationWriter
    from meddiff.runs.shards_that_fit import refuse_shards_of

    if options.out:
        check_folder(Path(options.out))
    kept = several_checkpoints(options) if "mechanism" in parts else []
    run = open_named(options)
    with reading(run):
        data, model = run.data, run.model
    if options.shards is not None and options.model is None:
        refuse_shards_of(model, data.manifest, options.shards, run.facts.name)
    if choose:
        other = RADIOLOGY if data.manifest.cohort == "mscoco" else COCO
        parts = tuple(part for part in parts if part not in other)
        if split_with_samples(run, data.train_split) is None:
            parts = tuple(part for part in parts if part not in TRAINED)
        parts = tuple(part for part in parts if model.reads_text or part not in BY_WORDS)
        parts = without_utility(parts, options, lambda name: split_with_samples(run, name))
    if not model.reads_text and (asked := [part for part in parts if part in BY_WORDS]):
        raise UserError(
            f"This model reads no text, and words are needed for {' and '.join(asked)}: `lightning evaluate prototypes` asks "
            "what its prototypes are about."
        )
    refuse_averages(parts, options, model.ema is not None)
    chosen = measurements(parts, options, run, kept)
    splits = {part: data.dataset(options[PARTS[part].options].split) for part in parts}
    with doing("checking settings and samples", stays=False):
        for part, measurement in chosen.items():  # all settings are checked before the first long pass
            measurement.check(splits[part])
        if any(part in DRAWING for part in chosen):
            model.vae  # noqa: B018 (read now: the passes before the first image may take an hour)
    out = Path(options.out) if options.out else run.evaluation_folder()
    about, digest = describe(run), model_digest(model)
    made = {part: {"model": digest, "samples": split_digest(split)} for part, split in splits.items()}
    with locked(out, "lightning evaluate"):
        refuse_other_results(out, about, made)
        writer = EvaluationWriter(out, about)
        for part, measurement in chosen.items():
            if part in TOLD:
                tell_cost(part, measurement, model, splits[part])
            what = f"evaluating {part}: {run.file.name} on {len(splits[part])} samples of {splits[part].split}"
            with doing(terminal(what)):
                result = measurement.run(model, splits[part], out, Ranks())
            for name, table in result.tables.items():
                writer.table(name, table.rows, table.first, table.only)
            writer.part(part, asdict(options[PARTS[part].options]), result.figures, made[part])
            if part == "controls" and run.report_folder is not None:
                writer.controls(run.report_folder, "grounding", result.controls)
            if about.get("published"):
                leave_point(writer, part, result)
            leave_pictures(measurement, result, run, splits[part])
            show(part, result)
    print(terminal(out))
    return 0


def describe(run: "Opened") -> dict[str, object]:
    """What the tables group models by."""
    return {
        "model": run.facts.name,
        "seed": run.facts.seed,
        **run.about(),
        "prompt": str(run.data.prompt),
        "cohort": run.data.manifest.cohort,
    }


def refuse_averages(parts: Sequence[str], options: Namespace, kept: bool) -> None:
    """Refuse ``ema`` of a model that keeps no average, before the first pass and not in the middle of the parts.

    Raises:
        UserError: it is asked for.
    """
    asked = [
        group for group in dict.fromkeys(PARTS[part].options for part in parts) if getattr(options[group], "ema", False)
    ]
    if asked and not kept:
        raise UserError(f"This model keeps no EMA: leave out {', '.join(f'--{group}.ema' for group in asked)}.")
