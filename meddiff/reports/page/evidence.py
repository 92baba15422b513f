"""What the report's numbers look like: every finding beside the prior, word maps, samples. Source: own."""

from meddiff.reports.page import charts
from meddiff.reports.page.derived import asked_n, change, class_rows, exclusions, phrases_text
from meddiff.reports.page.elements import figure, nothing, section, swatch
from meddiff.reports.page.gallery import attention_gallery, gallery_html, sample_gallery
from meddiff.reports.page.subject import Subject
from meddiff.reports.page.wording import (
    DASH,
    QUESTIONS,
    compact,
    count_text,
    direction,
    esc,
    label,
    meaning,
    parts,
    value_text,
)


def classes(subject: Subject) -> str:
    """Bars and a table of every class beside the location prior, and what was left out."""
    how = (
        "The location prior knows only where a finding usually is: a bar that does not pass its tick shows no understanding "
        "of the image."
    )
    of_runs = [class_rows(run) for run in subject.runs]
    names = sorted({name for rows in of_runs for name in rows})
    if not names:
        return section("classes", "Grounding by finding", how, nothing("No class has been evaluated yet."))
    chart = charts.class_bars(subject.runs, [(name, [rows.get(name) for rows in of_runs]) for name in names])
    body = []
    for name in names:
        for position, rows in enumerate(of_runs):
            row = rows.get(name)
            if row is None:
                continue
            above = row.value - row.prior if row.value is not None and row.prior is not None else None
            interval = (
                DASH if row.low is None else f"{value_text(row.low, digits=2)} to {value_text(row.high, digits=2)}"
            )
            numbers = [value_text(value, digits=2) for value in (row.value, row.start, row.prior)]
            cells = [str(row.n) if row.n else DASH, numbers[0], interval, *numbers[1:]]
            mood = "" if above is None else "good" if above > 0 else "bad"
            who = f"<td>{swatch(position, subject.runs)}</td>" if len(subject.runs) > 1 else ""
            body.append(
                f'<tr class="r{position}"><th scope="row">{esc(name)}</th>{who}{"".join(f"<td>{esc(c)}</td>" for c in cells)}'
                f'<td class="{mood}">{esc(value_text(above, sign=True, digits=2))}</td></tr>'
            )
    who = "<th>run</th>" if len(subject.runs) > 1 else ""
    columns = ("N phrases", "CNR", "95 % interval", "first evaluation", "location prior", "above prior")
    head = f"<th>finding</th>{who}" + "".join(f"<th>{column}</th>" for column in columns)
    table = f'<div class="box scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    counts = "; ".join(
        (f"{run.name}: " if len(subject.runs) > 1 else "")
        + phrases_text(run)
        + f" at {compact(run.phrases_images or 0)} images"
        for run in subject.runs
        if phrases_text(run)
    )
    text = "CNR of each finding, newest evaluation. Bar: the run; tick: location prior; whisker: 95 % interval over images "
    text += f"(none below five). N: {counts or 'not recorded'}."
    return section(
        "classes", "Grounding by finding", how, figure(chart, text) + table + _questions(subject) + _excluded(subject)
    )


def _questions(subject: Subject) -> str:
    """What else the maps were asked: exact masks, the end token, confounders, other findings of the image."""
    asked = [key for key in subject.keys if parts(key.partition("/")[2])[2] and "/" not in key.partition("/")[2]]
    asked += [f"grounding/{name}" for name in QUESTIONS if f"grounding/{name}" in subject.keys]
    rows = []
    for key in asked:
        for position, run in enumerate(subject.runs):
            now = change(run, key)
            if now is not None:
                who = f"<td>{swatch(position, subject.runs)}</td>" if len(subject.runs) > 1 else ""
                n = count_text(asked_n(run, key.partition("/")[2]))
                cells = f"<td>{n}</td>" + "".join(f"<td>{value_text(value)}</td>" for value in (now.value, now.start))
                better = {1: "more", -1: "less", 0: DASH}[direction(key)]
                title = f'<abbr title="{esc(meaning(key))}">{esc(label(key))}</abbr>'
                rows.append(f'<tr class="r{position}"><th scope="row">{title}</th>{who}{cells}<td>{better}</td></tr>')
    if not rows:
        return ""
    who = "<th>run</th>" if len(subject.runs) > 1 else ""
    head = f"<tr><th>asked of the same maps</th>{who}<th>N</th><th>newest</th><th>first evaluation</th><th>better</th></tr>"
    words = [f"{QUESTIONS[name][0]}: {QUESTIONS[name][1]}." for name in QUESTIONS if f"grounding/{name}" in asked]
    note = f'<p class="muted">{esc(" ".join(words))}</p>' if words else ""
    return f'<div class="box scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>{note}'


def _excluded(subject: Subject) -> str:
    parts = []
    for run in subject.runs:
        reasons = exclusions(run)
        if reasons:
            total = sum(n for _, n in reasons)
            who = f"{run.name}: " if len(subject.runs) > 1 else ""
            parts.append(
                f"{who}{total:,} phrases were left out of grounding or cut: "
                + "; ".join(f"{why} ({n:,})" for why, n in reasons)
                + "."
            )
    return "".join(f'<p class="muted">{esc(text)}</p>' for text in parts)


def attention(subject: Subject) -> str:
    """Word maps over the X-rays, with boxes and masks."""
    how = (
        "The overlay shows where the network attends to the marked word: the better it understands the word, the more of "
        "that lies inside the box (yellow) or the outline of the true finding (blue)."
    )
    gallery = attention_gallery(subject.runs)
    if gallery is None:
        return section("attention", "Where the words point", how, nothing("No attention maps have been captured yet."))
    tools = (
        '<div class="tools"><label><input type="checkbox" data-hides="boxes" checked> boxes</label>'
        '<label><input type="checkbox" data-hides="masks" checked> masks</label></div>'
    )
    body = tools + gallery_html(gallery, subject.runs)
    text = f"N = {len(gallery.tiles)} phrases, {len(gallery.positions)} evaluations. CNR: {meaning('grounding/cnr')}."
    body += f'<p class="muted">{esc(text)}</p>'
    return section("attention", "Where the words point", how, body)


def samples(subject: Subject) -> str:
    """Drawn images beside real ones."""
    how = "Each image was drawn from the text below it; the real image beside it is the one that the text was written for."
    gallery = sample_gallery(subject.runs)
    if gallery is None:
        return section("samples", "What it draws", how, nothing("No samples have been drawn yet."))
    body = gallery_html(gallery, subject.runs)
    body += f'<p class="muted">N = {len(gallery.tiles)} prompts, {len(gallery.positions)} evaluations.</p>'
    return section("samples", "What it draws", how, body)
