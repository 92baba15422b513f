"""The report at a glance: headline numbers, the trade-off, its parts over training, the loss. Source: own."""

from collections.abc import Sequence

from meddiff.reports.page import charts
from meddiff.reports.page.derived import change
from meddiff.reports.page.elements import figure, nothing, section, swatch, tabs
from meddiff.reports.page.subject import Subject
from meddiff.reports.page.wording import DASH, GROUNDING, compact, direction, esc, label, meaning, value_text


def _card(subject: Subject, key: str) -> str:
    lines, several = [], len(subject.runs) > 1
    for position, run in enumerate(subject.runs):
        now = change(run, key)
        name = f'<span class="who">{swatch(position, subject.runs)}</span>' if several else ""
        if now is None:
            empty = f'<span class="big none">{DASH}</span><span class="delta">not evaluated yet</span>'
            lines.append(f'<div class="figure r{position}">{name}{empty}</div>')
            continue
        delta = "first evaluation"
        mood = ""
        if now.start is not None:
            difference = now.value - now.start
            since = "step 0" if now.start_images == 0 else f"{compact(now.start_images or 0)} images"
            gain = direction(key) * difference
            mood = "good" if gain > 0 else "bad" if gain < 0 else ""
            verdict = {"good": "better by", "bad": "worse by", "": "changed by"}[mood]
            arrow = "▲" if difference > 0 else "▼"
            moved = f"{arrow} {verdict} {value_text(abs(difference))}" if difference else "unchanged"
            delta = f"{moved} since {since} ({value_text(now.start)})"
        newest = run.evaluations[-1].images
        if now.images != newest:
            delta += f"; at {compact(now.images)} images"
        lines.append(
            f'<div class="figure r{position}">{name}<span class="big">{value_text(now.value)}</span>'
            f'<span class="delta {mood}">{esc(delta)}</span></div>'
        )
    where, name = subject.control_of(key)
    controls = charts.common_controls(subject.runs, *where)
    beside = []
    for value, of_run in controls:
        beside.append(f"{name} {value_text(value)}" + ("" if of_run is None else f" ({subject.runs[of_run].name})"))
    foot = "; ".join(beside) if beside else f"{name}: not measured"
    title = f'<abbr title="{esc(meaning(key))}">{esc(label(key))}</abbr>'
    n = subject.n_of(key).removeprefix(", ") or "N not recorded"
    return f'<div class="card"><h3>{title}</h3>{"".join(lines)}<p class="foot">{esc(foot)}<br>{esc(n)}</p></div>'


def headline(subject: Subject) -> str:
    """The newest numbers, each with its change and its control."""
    cards = "".join(_card(subject, key) for key in (subject.cnr, subject.auroc, subject.top1, subject.distance))
    how = (
        "Grounding asks whether a word's attention lies on its finding (more is better); the Fréchet distance asks how far "
        "drawn images are from real ones (less is better)."
    )
    return section("headline", "Where it stands", how, f'<div class="cards">{cards}</div>')


def tradeoff(subject: Subject) -> str:
    """The curve this suite is for, one tab for every distance that was measured."""
    how = (
        "Follow the path from the hollow point at step 0: to the right images get better, upwards words point better at "
        "their findings; a path that goes right and down buys image quality with understanding."
    )
    panels = []
    for key in subject.distances:
        chart = charts.tradeoff(subject.runs, key, subject.cnr, subject.n_images, subject.n_phrases)
        if chart:
            panels.append((label(key), f'<div class="scroll">{chart}</div>', f"{label(key)}: {meaning(key)}."))
    if not panels:
        why = "No evaluation has both a grounding score and a distance yet"
        return section(
            "tradeoff", "The trade-off over training", how, nothing(why + ": the curve starts with the first that has.")
        )
    both = [
        sum(subject.cnr in e.values and subject.distance in e.values for e in run.evaluations) for run in subject.runs
    ]
    either = [sum(bool(e.values) for e in run.evaluations) for run in subject.runs]
    text = f"Points are evaluations, labelled with training images ({' + '.join(map(str, both))} in all). "
    if both != either:
        text += f"{sum(either) - sum(both)} evaluations without both measurements are not drawn. "
    text += f"{label(subject.cnr)}: {meaning(subject.cnr)}. "
    drawn = [(name, f"{chart}<figcaption>{esc(text + unit)}</figcaption>") for name, chart, unit in panels]
    body = f'<figure class="box">{tabs("distance", drawn)}</figure>'
    return section("tradeoff", "The trade-off over training", how, body)


def over_training(subject: Subject) -> str:
    """Every headline metric, and what else was measured of its kind, against images."""
    how = "The same measurements against the number of images trained on; dashed lines are what needs no training."
    wanted = [subject.cnr, subject.distance, subject.auroc, subject.top1]
    others = [f"grounding/{'macro_' if 'macro_' in subject.cnr else ''}{name}" for name in GROUNDING]
    wanted += [key for key in others if key in subject.keys and key not in wanted and not key.endswith("abs")]
    wanted += [key for key in ("grounding/mask_macro_cnr", "grounding/own_beats_other") if key in subject.keys]
    wanted += [key for key in subject.distances if key not in wanted]
    figures = []
    for key in wanted:
        where, name = subject.control_of(key)
        n = subject.n_of(key)
        chart = charts.over_training(subject.runs, key, where, name, n)
        if chart:
            better = {1: "More is better. ", -1: "Less is better. ", 0: ""}[direction(key)]
            text = f"{label(key)}{n}: {meaning(key)}. {better}"
            figures.append(figure(chart, text))
    body = f'<div class="pairs">{"".join(figures)}</div>' if figures else nothing("No evaluation yet.")
    return section("time", "Both sides over training", how, body)


def slashed(counts: Sequence[int]) -> str:
    """``100`` if all are equal, else ``100 / 80``."""
    return " / ".join(f"{n:,}" for n in (counts[:1] if len(set(counts)) == 1 else counts))


def loss(subject: Subject) -> str:
    """Training and validation loss."""
    how = "The loss says that training goes on; it says little about words, because most pixels do not hang on them."
    drawn = charts.loss(subject.runs)
    if drawn is None:
        return section("loss", "Loss", how, nothing("No loss has been logged yet."))
    chart, size = drawn
    counts = [(len(run.logged("train/loss")), len(run.logged("val/loss"))) for run in subject.runs]
    text = "Mean squared error of the denoiser's prediction, no unit. "
    text += f"Line: training, {slashed([a for a, _ in counts])} logged values"
    text += f", each point the mean of {size}" if size > 1 else ""
    text += f". Points: validation, N = {slashed([b for _, b in counts])} passes." if any(b for _, b in counts) else "."
    return section("loss", "Loss", how, figure(chart, text))
