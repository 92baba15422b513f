"""The end of the report: what was run, and how to run it again. Source: own."""

import shlex

from meddiff.reports.page.derived import median
from meddiff.reports.page.elements import nothing, section, swatch, table
from meddiff.reports.page.subject import Subject
from meddiff.reports.page.wording import DASH, count_text, esc, value_text
from meddiff.runs import names
from meddiff.runs.folder import Run


def flat(config: object, prefix: str = "") -> dict[str, object]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; lists as they are."""
    if not isinstance(config, dict):
        return {prefix: config}
    found: dict[str, object] = {}
    for key, value in config.items():
        found.update(flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return found


def command_of(run: Run) -> str:
    """The command that made the run if its config says so, else one that repeats it."""
    if run.published:
        return f"lightning evaluate all --model {shlex.quote(str(run.published.get('run')))} --shards DIR"
    command = run.config.get("command")
    if isinstance(command, list):
        return shlex.join(map(str, command))
    return str(command) if command else f"lightning fit -c {shlex.quote(str(run.path / names.CONFIG))}"


def _facts(run: Run) -> list[tuple[str, str]]:
    frozen = run.setting("model", "init_args", "freeze_text_encoder")
    newest = run.evaluations[-1] if run.evaluations else None
    speed = median([value for _, value in run.logged("throughput/images_per_s")])
    mfu = median([value for _, value in run.logged("throughput/mfu")])
    facts = [
        ("folder", str(run.path)),
        ("text encoder", {True: "frozen", False: "learnable"}.get(frozen, "") if isinstance(frozen, bool) else ""),
        (
            "newest evaluation",
            f"{count_text(newest.images)} images, step {count_text(newest.step)}" if newest else "none",
        ),
        ("steps wanted", run.setting("trainer", "max_steps")),
        ("batch size", run.setting("data", "init_args", "batch_size")),
        ("learning rate", run.setting("model", "init_args", "learning_rate")),
        ("precision", run.setting("trainer", "precision")),
        ("seed", run.config.get("seed_everything")),
        ("data", run.setting("data", "class_path")),
        ("speed", f"{value_text(speed)} images/s (median)" if speed is not None else ""),
        ("model FLOP utilisation", f"{100 * mfu:.1f} % (median)" if mfu is not None else ""),
        ("last row logged", run.updated),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def configuration(subject: Subject) -> str:
    """What differs between the runs, the main settings, the command, and config.yaml itself."""
    how = "What was run: the settings that matter most, how to run it again, and the whole resolved configuration."
    parts = []
    flats = [flat(run.config) for run in subject.runs]
    if len(flats) > 1:
        keys = list(dict.fromkeys(key for one in flats for key in one))
        differing = [key for key in keys if len({repr(one.get(key)) for one in flats}) > 1]
        rows = [(key, [str(one.get(key, DASH)) for one in flats]) for key in differing]
        if rows:
            parts.append("<h3>What differs</h3>" + table(["setting", *(run.name for run in subject.runs)], rows))
    for position, run in enumerate(subject.runs):
        facts = "".join(f"<dt>{esc(name)}</dt><dd>{esc(value)}</dd>" for name, value in _facts(run))
        parts.append(f"<h3>{swatch(position, subject.runs)}</h3>" if len(subject.runs) > 1 else "")
        said = "Made by" if run.config.get("command") else "Run it again"
        parts.append(f'<dl class="facts">{facts}<dt>{said}</dt><dd><code>{esc(command_of(run))}</code></dd></dl>')
        if run.config_text:
            parts.append(f"<details><summary>config.yaml</summary><pre>{esc(run.config_text)}</pre></details>")
        else:
            what = (
                "A published model: nothing was trained here."
                if run.published
                else "This run folder has no config.yaml."
            )
            parts.append(nothing(what))
    return section("configuration", "Configuration", how, "".join(parts))
