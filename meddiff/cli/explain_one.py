"""``lightning explain --image`` and ``--prompts``: every tool on one image and text, or on images that are drawn for it."""

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from meddiff.cli.named_model import open_named, reading
from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.common.outside import terminal
from meddiff.common.progress import doing, progress_bar

if TYPE_CHECKING:
    from meddiff.attribution.trajectory import Trajectory
    from meddiff.cli.explained_before import ExplainedBefore
    from meddiff.evaluation.explained import Explained
    from meddiff.models.latent_diffusion import LatentDiffusion

#: Tools that must be asked for by name.
BESIDE = ("df_rise_prompt",)
#: Timesteps of a drawn image, and of a real one, unless the command says so.
DRAWN, REAL = 30, 8
#: Steps of a drawn image that are looked at.
LOOKED_AT = 8


def tools_of(options: Namespace) -> list[str]:
    """The tools that are asked.

    Raises:
        UserError: one that there is not.
    """
    from meddiff.evaluation.saliency_tools import TOOLS, build_tools

    usual = [name for name in TOOLS if name not in BESIDE]
    chosen = usual if options.tools is None else [one for one in options.tools.replace(",", " ").split() if one]
    build_tools(chosen)
    return chosen


def explain_images(options: Namespace) -> int:
    """Pictures and an animation of each image into the folder ``--out``; returns the exit code.

    Of ``--prompts``, images that this folder has of the same model and settings are not made again.

    Raises:
        UserError: a schedule that there is not, steps that repeat, or a ledger that is none.
    """
    from meddiff.attribution.schedules import SCHEDULES, schedule
    from meddiff.attribution.trajectory import load

    tools = tools_of(options)
    schedules = [one for one in options.schedule.replace(",", " ").split() if one]
    unknown = [one for one in schedules if one not in SCHEDULES]
    if unknown or not schedules:
        raise UserError(f"--schedule is {options.schedule!r}: name one or several of {', '.join(SCHEDULES)}.")
    steps = options.timesteps or DRAWN
    lists = {name: schedule(name, steps, options.gamma) for name in schedules} if options.prompts else {}
    out = Path(options.out or "explained")
    if options.image is not None:
        return explain_real(options, tools, out)
    model = _opened(options)
    walked: dict[str, list[Trajectory]] = {}
    before = made_before(model, tools, out, options)
    left = {
        name: [place for place, text in enumerate(options.prompts) if not before.has(key_of(place), text, timesteps)]
        for name, timesteps in lists.items()
    }
    # the sums of relevance go over all images, also those that were made before
    related = len(options.prompts) * len(lists) if "relevance" in tools else 0
    say_cost(model, tools, sum(map(len, left.values())), min(LOOKED_AT, steps), steps, options, related)
    with before.ledger:
        for name, timesteps in lists.items():
            paths = dict(zip(left[name], drawn(model, options, timesteps, name, left[name]), strict=True))
            with progress_bar(len(paths), "image", f"looking into images, {name}") as bar:
                for place, path in paths.items():
                    looked = path.at(spread(len(path), LOOKED_AT))
                    files = write(out, stem(place, name), explained(model, looked, tools, options))
                    path.save(out / f"{stem(place, name)}.safetensors")
                    files.append(f"{stem(place, name)}.safetensors")
                    before.keep(key_of(place), options.prompts[place], timesteps, files)
                    bar.update()
            walked[name] = [
                paths[place] if place in paths else load(out / f"{stem(place, name)}.safetensors")
                for place in range(len(options.prompts))
            ]
            with doing(f"writing prompts-{name}.png"):
                write_emerging(out / f"prompts-{name}.png", model, walked[name])
    if "relevance" in tools:
        write_relevance(out, model, walked)
    if len(lists) > 1:  # the same seed and prompt under each schedule
        with doing("writing schedules.png"):
            write_ends(out / "schedules.png", model, options, lists)
    print(terminal(out))
    return 0


def key_of(place: int) -> str:
    """The key of a prompt's noise, that of ``lightning sample``."""
    return f"{place:04d}-000"


def stem(place: int, schedule: str) -> str:
    """What the files of an image are called."""
    return f"{place:04d}-{schedule}"


def made_before(model: "LatentDiffusion", tools: list[str], out: Path, options: Namespace) -> "ExplainedBefore":
    """The images of ``out`` that this model, these tools and settings made."""
    from meddiff.cli.explained_before import ExplainedBefore
    from meddiff.evaluation.provenance import model_digest

    about: dict[str, object] = {"model": model_digest(model), "vae": options.vae, "tools": tools}
    about["paper"] = options.preset == "paper"
    return ExplainedBefore(out, {**about, "seed": options.seed, "guidance_scale": options.guidance_scale})


def explain_real(options: Namespace, tools: list[str], out: Path) -> int:
    """One real image and its text."""
    from meddiff.notebook import LoadedModel

    model = _opened(options)
    steps = options.timesteps or REAL
    say_cost(model, tools, 1, steps, steps, options)
    with doing("looking into the image"):
        found = LoadedModel(model).explain(
            *(options.image, options.text, tools, steps),
            paper=options.preset == "paper", guidance_scale=options.guidance_scale, seed=options.seed,
        )  # fmt: skip
    write(out, "image", found)
    print(terminal(out))
    return 0


def _opened(options: Namespace) -> "LatentDiffusion":
    run = open_named(options)
    with reading(run):
        return run.model


def say_cost(
    model: "LatentDiffusion",
    tools: list[str],
    images: int,
    looked: int,
    steps: int,
    options: Namespace,
    related: int = 0,
) -> None:
    """What it will take; refused where the budget is too short, since one image cannot be made fewer.

    Args:
        images: that are drawn and asked.
        looked: steps of each that the tools are asked about.
        steps: of each path.
        related: images whose words' relevance is summed.

    Raises:
        UserError: the estimate is above ``--budget``.
    """
    from meddiff.attribution.trajectory import cost
    from meddiff.evaluation.explained import explain_cost, seconds_of_evaluation
    from meddiff.evaluation.prompt_relevance import relevance_cost

    evaluations = images * (cost(steps) + explain_cost(tools, looked, options.preset == "paper"))
    evaluations += relevance_cost(related, steps)
    seconds = evaluations * seconds_of_evaluation(model, options.batch_size)
    print(f"explain: {evaluations:,.0f} U-Net evaluations, about {seconds:,.0f} s on this machine", flush=True)
    if options.budget is not None and seconds > options.budget:
        raise UserError(
            f"About {seconds:,.0f} s are needed and --budget is {options.budget:,.0f}: take fewer --tools, fewer "
            f"--timesteps or fewer --prompts."
        )


def drawn(
    model: "LatentDiffusion", options: Namespace, timesteps: list[int], name: str, places: list[int]
) -> "list[Trajectory]":
    """The path of each prompt at these places; the noise is that of ``lightning sample``."""
    from meddiff.attribution.trajectory import cost, generate
    from meddiff.evaluation.undisturbed import undisturbed

    if not places:
        return []
    keys, prompts = [key_of(place) for place in places], [options.prompts[place] for place in places]
    given = (prompts, timesteps, keys, options.seed, options.guidance_scale, options.batch_size)
    total = len(keys) * cost(len(timesteps))
    with undisturbed(model), progress_bar(total, "pass", f"drawing images, {name}") as bar:
        return generate(model, *given, bar.update)


def explained(model: "LatentDiffusion", path: "Trajectory", tools: list[str], options: Namespace) -> "Explained":
    """Every tool on one path."""
    from meddiff.evaluation.explained import explain_path

    paper = options.preset == "paper"
    return explain_path(model, path, tools, None, paper, options.seed, options.batch_size)


def spread(steps: int, number: int) -> list[int]:
    """``number`` places among ``steps``, evenly, first and last among them.

    Example:
        >>> spread(30, 4)
        [0, 10, 19, 29]
    """
    if number >= steps:
        return list(range(steps))
    return [round(place * (steps - 1) / (number - 1)) for place in range(number)]


def write(out: Path, stem: str, found: "Explained") -> list[str]:
    """Panels, layers and the animation of one image; returns the names of the files."""
    from meddiff.shards.members import png_bytes

    files = {f"{stem}.png": png_bytes(found.panels()), f"{stem}.gif": found.animation()}
    if found.layers:
        files[f"{stem}-layers.png"] = png_bytes(found.layer_panels())
    _put(out, files)
    return list(files)


def write_relevance(out: Path, model: "LatentDiffusion", paths: "dict[str, list[Trajectory]]") -> None:
    """``relevance_by_word.csv`` and its curves, ``relevance_by_role.csv``."""
    from meddiff.evaluation.prompt_relevance import prompt_relevance
    from meddiff.reports.page.word_curves import word_curves_svg
    from meddiff.runs.tables import write_table

    with progress_bar(sum(map(len, paths.values())), "image", "relevance of words") as bar:
        tables = prompt_relevance(model, paths, bar.update)
    for name, table in tables.items():
        write_table(out / f"{name}.csv", table.rows, table.first)
    drawing = word_curves_svg(tables["relevance_by_word"].rows)
    if drawing is None:
        print("no picture of the curves: it needs a word, and vl-convert (pip install 'meddiff-tradeoff[export]')")
    else:
        _put(out, {"relevance_by_word.svg": drawing})


def write_emerging(path: Path, model: "LatentDiffusion", paths: "list[Trajectory]") -> None:
    """Prompts downwards, timesteps to the right: what each step takes the clean image for."""
    from meddiff.attribution.strips import panels
    from meddiff.models.autoencoder import decode
    from meddiff.shards.members import png_bytes

    chosen = [one.at(spread(len(one), LOOKED_AT)) for one in paths]
    rows = [list(decode(model.vae, one.clean.to(model.device), model.scaling_factor)) for one in chosen]
    columns = [f"t = {timestep}" for timestep in chosen[0].timesteps.tolist()]
    _put(path.parent, {path.name: png_bytes(panels(rows, [one.text for one in chosen], columns))})


def write_ends(path: Path, model: "LatentDiffusion", options: Namespace, lists: dict[str, list[int]]) -> None:
    """Prompts downwards, schedules to the right: the images that the same seed becomes."""
    from meddiff.attribution.strips import panels
    from meddiff.attribution.trajectory import load
    from meddiff.models.autoencoder import decode
    from meddiff.shards.members import png_bytes

    rows = []
    for place in range(len(options.prompts)):
        ends = [load(path.parent / f"{stem(place, name)}.safetensors").after[-1:] for name in lists]
        rows.append([decode(model.vae, end.to(model.device), model.scaling_factor)[0] for end in ends])
    sheet = panels(rows, list(options.prompts), [name.removeprefix("exponential_") for name in lists], side=128)
    _put(path.parent, {path.name: png_bytes(sheet)})


def _put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_open(folder / name) as stream:
            stream.write(content)
