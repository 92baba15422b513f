"""``lightning evaluate PART``: every number of the paper's tables from one checkpoint."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from meddiff.common.errors import UserError

#: part -> what it measures. "words" needs no pass of its own: its numbers come out of the grounding pass.
PARTS = {
    "grounding": "phrase grounding: CNR, AUROC, Top-1, IoU (Tables 1, 3, 7), and of every word (Table 6)",
    "fidelity": "Frechet and kernel distances of drawn to real images (Table 4)",
    "diversity": "MS-SSIM between images drawn for one prompt (Table 4)",
    "classifier": "AUROC of a classifier on drawn images (Table 5)",
    "coco": "grounding of MS-COCO captions on instance masks (Table 2)",
}
#: "all" leaves out what its cohort does not allow.
ALIASES = {"words": ("grounding",), "all": tuple(PARTS)}
#: Parts of natural images, and parts that need radiology's phrases and labels.
COCO, RADIOLOGY = ("coco",), ("grounding", "classifier")


def main(arguments: list[str]) -> int:
    """Parse and run; returns the exit code.

    Raises:
        UserError: unknown part, nothing to evaluate, or results of other settings are in the way.
    """
    names = [*PARTS, *ALIASES]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: lightning evaluate PART --run RUN | --ckpt FILE [-c FILE] [options]\n")
        print("\n".join(f"  {name:<12}{text}" for name, text in PARTS.items()))
        print("  words       as grounding\n  all         all of them\n\noptions: lightning evaluate PART --help")
        return 0
    place = next((i for i, argument in enumerate(arguments) if argument in names), None)
    if place is None:
        raise UserError(f"No part {arguments[0]!r} to evaluate: there are {', '.join(names)}.")
    part, rest = arguments[place], arguments[:place] + arguments[place + 1 :]
    return evaluate(ALIASES.get(part, (part,)), _parse(part, rest), choose=part == "all")


def _parse(part: str, arguments: list[str]) -> Any:
    from meddiff.cli.parsing import SentenceParser
    from meddiff.evaluation.parts import OPTIONS

    parser = SentenceParser(prog=f"lightning evaluate {part}", description="Numbers of the paper's tables.")
    parser.add_argument("-c", "--config", action="config", help="YAML file with any of the options below.")
    parser.add_argument("--run", type=str | None, default=None, help="Run folder: its newest checkpoint is evaluated.")
    parser.add_argument("--ckpt", type=str | None, default=None, help="Checkpoint file.")
    parser.add_argument("--out", type=str | None, default=None, help="Folder; RUN/evaluation/<images> by default.")
    parser.add_argument("--shards", type=str | None, default=None, help="Evaluate on these shards, not the run's.")
    parser.add_argument("--vae", type=str | None, default=None, help="Autoencoder, if it has moved since training.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    for name in ALIASES.get(part, (part,)):
        parser.add_class_arguments(OPTIONS[name], name)
    return parser.instantiate_classes(parser.parse_args(arguments))


def evaluate(parts: tuple[str, ...], options: Any, choose: bool = False) -> int:
    """Run ``parts`` one after the other; each leaves its files before the next begins.

    Args:
        choose: leave out the parts that the cohort does not allow.
    """
    from meddiff.common.files import write_json
    from meddiff.evaluation.parts import RUN, read_json
    from meddiff.runs.open_run import load_subject

    subject = load_subject(options.run, options.ckpt, options.shards, options.vae, options.device)
    out = Path(options.out) if options.out else default_folder(subject)
    record = read_json(out / "evaluation.json")
    if choose:
        other = RADIOLOGY if subject.data.manifest.cohort == "mscoco" else COCO
        parts = tuple(name for name in parts if name not in other)
    for name in parts:  # all settings are checked before the first long pass
        RUN[name].check(subject, out, options[name])
    for name in parts:
        found = RUN[name].run(subject, out, options[name])
        record = {
            **record,
            **subject.describe(),
            "parts": {**record.get("parts", {}), name: _plain(asdict(options[name]))},
        }
        write_json(out / "evaluation.json", record)
        write_json(out / "summary.json", {**read_json(out / "summary.json"), name: found})
        _show(name, found)
    print(out)
    return 0


def default_folder(subject: Any) -> Path:
    """``RUN/evaluation/<images>`` of a run; ``evaluation/<checkpoint>`` of a checkpoint without one."""
    if subject.run is None:
        return Path("evaluation") / subject.checkpoint.stem
    return Path(subject.run) / "evaluation" / f"{subject.images:09d}"


def _plain(value: Any) -> Any:
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _show(name: str, found: dict[str, float]) -> None:
    """The figures that have no class or sample in their names."""
    short = {key: value for key, value in found.items() if "/" not in key}
    print(f"{name}: " + "  ".join(f"{key} {value:.4g}" for key, value in short.items()))
