"""``lightning explain``: where the maps of each tool point, timestep by timestep; of a cohort, of one image, of drawn ones."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace

from meddiff.cli.libraries import read_metrics
from meddiff.cli.named_model import add_model_arguments, open_named, reading
from meddiff.cli.parsing import SentenceParser
from meddiff.common.errors import UserError
from meddiff.common.locks import locked
from meddiff.common.outside import terminal
from meddiff.common.progress import doing
from meddiff.common.targets import check_folder
from meddiff.runs import names

if TYPE_CHECKING:
    from meddiff.evaluation.measurement import Result
    from meddiff.evaluation.saliency import Saliency
    from meddiff.evaluation.saliency_units import SaliencyOptions
    from meddiff.runs.opened import Opened
    from meddiff.shards.dataset import LatentShardsDataset

#: What --preset stands for, if the options of the same names are not given.
PRESETS: dict[str, dict[str, int | bool | None]] = {
    "fast": {"samples": 48, "timesteps": 8, "slow_samples": 8, "slow_timesteps": 4, "paper": False},
    "paper": {"samples": None, "timesteps": 40, "slow_samples": 64, "slow_timesteps": 8, "paper": True},
}
#: Phrases whose maps play deletion and insertion, by preset; at most those that are shown.
GAMES = {"fast": 2, "paper": 64}
#: What they are called where costs are told.
GAME = "deletion and insertion"
PART = "saliency"


def main(arguments: list[str]) -> int:
    """Parse and run; returns the exit code.

    Raises:
        UserError: no model, nothing to explain, an unknown tool, or results of other settings are in the way.
    """
    options = parse(arguments)
    read_metrics("explain")
    if options.image is not None or options.prompts:
        from meddiff.cli.explain_one import explain_images

        return explain_images(options)
    if options.text is not None:
        raise UserError('--text goes with --image: give --image FILE --text "...", or --prompts "..." to draw.')
    return explain_cohort(options)


def parse(arguments: list[str]) -> Namespace:
    """The options; those of one way alone are refused with another."""
    parser = SentenceParser(
        prog="lightning explain",
        description="Maps of every tool by timestep: of the phrases of a cohort, scored with controls; of one image and "
        "text; or of drawn images.",
    )
    parser.add_argument("--run", type=str | None, default=None, help="Run folder: its newest checkpoint is looked at.")
    parser.add_argument("--ckpt", type=str | None, default=None, help="Checkpoint file.")
    add_model_arguments(parser)
    parser.add_argument("--shards", type=str | None, default=None, help="Phrases of these shards, not the run's.")
    parser.add_argument("--image", type=str | None, default=None, help="One image instead of a cohort, with --text.")
    parser.add_argument("--text", type=str | None, default=None, help="What is asked about --image.")
    parser.add_argument("--prompts", type=str, nargs="+", default=[], help="Draw images for these and explain them.")
    parser.add_argument(
        "--tools", type=str | None, default=None, help="Names with commas; all but df_rise_prompt by default."
    )
    parser.add_argument(
        "--preset",
        type=Literal["fast", "paper"],
        default="fast",
        help="fast: minutes on two cores; paper: as published.",
    )
    parser.add_argument(
        "--budget", type=float | None, default=None, help="Seconds; fewer phrases where it is too short."
    )
    parser.add_argument("--split", type=str, default="grounding", help="Split whose phrases are asked.")
    parser.add_argument("--samples", type=int | None, default=None, help="Number of phrases; the preset's by default.")
    parser.add_argument(
        "--timesteps", type=int | None, default=None, help="Number of timesteps; the preset's by default."
    )
    parser.add_argument("--shown", type=int, default=6, help="Phrases whose maps are drawn.")
    parser.add_argument("--schedule", type=str, default="uniform", help="Of --prompts; several with commas: same seed.")
    parser.add_argument("--gamma", type=float, default=60.0, help="Of the exponential schedules.")
    parser.add_argument("--guidance_scale", type=float, default=4.0, help="Of drawn images.")
    parser.add_argument("--seed", type=int, default=0, help="Of noise, choice and masks.")
    parser.add_argument("--batch_size", type=int, default=64, help="Forward passes at once; changes no result.")
    parser.add_argument("--out", type=str | None, default=None, help="Folder; RUN/evaluation/<images> by default.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    options = parser.parse_args(arguments)
    if options.budget is not None and not options.budget > 0:
        raise UserError(f"--budget is {options.budget}; it is a number of seconds above 0.")
    if options.image is not None and options.text is None:
        raise UserError('--image needs --text "...": what is asked about it.')
    if options.image is not None and options.prompts:
        raise UserError("Give either --image and --text or --prompts: one is looked at, the others are drawn.")
    if options.out:
        check_folder(Path(options.out))
    return options


def saliency_options(options: Namespace) -> "SaliencyOptions":
    """The preset, with what is given in its place."""
    from meddiff.cli.explain_one import tools_of
    from meddiff.evaluation.saliency_units import SaliencyOptions

    given = {name: options[name] for name in ("samples", "timesteps") if options[name] is not None}
    more = {name: options[name] for name in ("split", "shown", "seed", "batch_size")}
    return SaliencyOptions(tools=tools_of(options), **{**PRESETS[options.preset], **given, **more})


def explain_cohort(options: Namespace) -> int:
    """Phrases of a split: tables into the evaluation folder, pictures into the run's media."""
    wanted = saliency_options(options)  # before anything is read
    from meddiff.cli.evaluate import describe
    from meddiff.evaluation.provenance import model_digest, split_digest
    from meddiff.evaluation.ranks import Ranks
    from meddiff.evaluation.saliency import Saliency
    from meddiff.evaluation.saliency_games import play_games
    from meddiff.evaluation.saliency_media import write_panels, write_pictures
    from meddiff.evaluation.saliency_units import Beside
    from meddiff.runs.earlier_results import refuse_other_results
    from meddiff.runs.evaluations import EvaluationWriter
    from meddiff.runs.shards_that_fit import refuse_shards_of

    run = open_named(options)
    with reading(run):
        data, model = run.data, run.model
    if options.shards is not None and options.model is None:
        refuse_shards_of(model, data.manifest, options.shards, run.facts.name)
    split = data.dataset(wanted.split)
    beside = Beside(data.dataset(data.train_split) if data.manifest.samples(data.train_split) else None)
    try:
        beside.untrained = run.untrained()
    except UserError as error:  # the sources may be gone; everything else can still be measured
        print(terminal(f"without untrained weights: {error}"))
    clock = Clock(options.budget, GAMES[options.preset])
    measured = Saliency(wanted, beside, show_progress=True, go_on=clock.has_time)
    measured.check(split)
    out = Path(options.out) if options.out else run.evaluation_folder()
    about, made = describe(run), {"model": model_digest(model), "samples": split_digest(split)}
    with locked(out, "lightning explain"):
        refuse_other_results(out, about, {PART: made})
        measured = within(measured, run, split, clock)
        result = measured.run(model, split, out, Ranks())
        if clock.games:
            result.tables |= play_games(measured, model, split, out, clock.games)
        writer = EvaluationWriter(out, about)
        for name, table in result.tables.items():
            writer.table(name, table.rows, table.first, table.only)
        writer.part(PART, asdict(measured.options), result.figures, made)
        sheets = write_panels(out / "figures", measured, split)
        if run.report_folder is not None:
            write_pictures(run.report_folder / names.MEDIA / names.SALIENCY, run.images, measured, split)
    if measured.left_out:
        print(
            f"left out because the budget was used up: {measured.left_out} askings; the same command goes on with them"
        )
    print(answers_text(result))
    for sheet in sheets:
        print(terminal(sheet))
    print(terminal(out))
    if run.report_folder is not None:
        print(terminal(f"lightning report {run.report_folder} draws them, with a slider over timesteps"))
    return 0


class Clock:
    """The seconds that may be used, and what is cut with them.

    Args:
        budget: None is no limit.
        games: phrases whose maps play deletion and insertion; fewer where the budget is too short.
    """

    def __init__(self, budget: float | None, games: int = 0) -> None:
        self.budget, self.games, self._start = budget, games, time.monotonic()

    def left(self) -> float:
        """Seconds that are left."""
        return float("inf") if self.budget is None else self.budget - (time.monotonic() - self._start)

    def has_time(self) -> bool:
        """Whether there are any."""
        return self.left() > 0


def within(measured: "Saliency", run: "Opened", split: "LatentShardsDataset", clock: Clock) -> "Saliency":
    """The measurement with so many phrases as fit into the budget; its cost and what is left out are said."""
    options = measured.options
    from meddiff.evaluation.explained import seconds_of_evaluation
    from meddiff.evaluation.saliency_games import games_cost
    from meddiff.evaluation.saliency_tools import build_tools

    with doing("timing one phrase of each tool", stays=False):
        played = games_cost(measured, split, clock.games) if clock.games else 0.0
        evaluations = measured.cost(run.model, split) + played
        seconds = measured.seconds(run.model, split)  # of one phrase of each tool, as they take here and now
    of_tools = {name: seconds[name] * number for name, number in measured.askings(split).items()}
    if played:
        of_tools[GAME] = played * seconds_of_evaluation(run.model, options.batch_size)
    total = sum(of_tools.values())
    parts = ", ".join(f"{name} {cost:,.0f} s" for name, cost in of_tools.items())
    print(f"explain: {evaluations:,.0f} U-Net evaluations, about {total:,.0f} s on this machine ({parts})", flush=True)
    if total <= clock.left():
        return measured
    named = {tool.name for tool in build_tools(options.tools) if tool.slow} | {GAME}
    quick, slow = shares(
        sum(cost for name, cost in of_tools.items() if name not in named),
        sum(cost for name, cost in of_tools.items() if name in named),
        max(0.0, clock.left()),
    )
    every = len(measured.samples(split))
    few = min(options.slow_samples, every)
    samples, slow_samples, games = max(1, int(quick * every)), max(1, int(slow * few)), int(slow * clock.games)
    print(
        f"budget of {clock.budget or 0:,.0f} s: {samples} of {every} phrases are asked, {min(slow_samples, samples)} of {few} "
        f"with slow tools, {games} of {clock.games} play deletion and insertion; the others are left out",
        flush=True,
    )
    clock.games = games
    fewer = type(measured)(
        replace(options, samples=samples, slow_samples=slow_samples),
        measured.beside,
        measured.show_progress,
        measured.go_on,
    )
    return fewer


def shares(quick: float, slow: float, budget: float) -> tuple[float, float]:
    """Which parts of what quick and slow tools want fit into a budget: each has half, and what one leaves is the other's.

    Example:
        >>> shares(100, 900, 200), shares(50, 400, 200)
        ((1.0, 0.1111111111111111), (1.0, 0.375))
    """
    first = min(1.0, max(budget / 2, budget - slow) / quick) if quick > 0 else 1.0
    second = min(1.0, (budget - first * quick) / slow) if slow > 0 else 1.0
    return first, second


def answers_text(result: "Result") -> str:
    """Markdown: which tool grounds best at each timestep, and where each is best."""
    lines = ["", "| timestep | best by CNR | CNR | second | difference | 95 % interval |", "|---" * 6 + "|"]
    for row in result.tables["saliency_best"].rows:
        if row["figure"] == "cnr":
            ends = "" if row.get("low") is None else f"[{row['low']:.2f}, {row['high']:.2f}]"
            difference = "" if row.get("difference") is None else f"{row['difference']:.2f}"
            cells = (row["timestep"], row["tool"], f"{row['value']:.2f}", row.get("second") or "", difference, ends)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    head = "| tool | best timestep | CNR less that of an absent finding | 95 % interval | place known from | to |"
    lines += ["", head, "|---" * 6 + "|"]
    for row in result.tables["saliency_when"].rows:
        if row["figure"] == "gain/absent" and row["layer"] == "all" and row["class"] == "all":
            ends = "" if row["low"] is None else f"[{row['low']:.2f}, {row['high']:.2f}]"
            known = [str(row[end]) if row[end] is not None else "never" for end in ("known_from", "known_to")]
            line = [str(row["tool"]), str(row["best_timestep"]), f"{row['value']:.2f}", ends, *known]
            lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)
