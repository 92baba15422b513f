"""What a group asks before it trusts a generator, one sentence a question: of the figures of ``lightning evaluate``.

Copies, coverage, usefulness for training, saying what was asked, silence when a finding is absent: each figure stands in its
sentence beside its control; what was not measured says which command measures it. A distance is shown nowhere without the
share of copies (:func:`copies_beside`): copies of training images have a perfect distance. Source: own.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meddiff.reports.page.wording import value_text
from meddiff.runs.folder import Run

Figures = dict[str, float]
#: Parts that nothing is asked of a model without text.
BY_WORDS = ("utility", "alignment", "absent")
#: Runs up to which each has its own sentences.
FEW = 8


@dataclass(frozen=True)
class Answer:
    """One question and what was found.

    Attributes:
        title: of the question, short.
        question: as one would ask it.
        figure: the number in large; a dash where it was not measured.
        sentence: the number and its control, in words.
        command: that measures it; "" where it was measured.
    """

    title: str
    question: str
    figure: str
    sentence: str
    command: str = ""


def answers(run: Run) -> list[Answer]:
    """The five of a run, always in this order."""
    found = []
    for part, (title, question, say) in ASKED.items():
        said = say(run.summary(part))
        if said is None and part in BY_WORDS and not run.facts.reads_text:
            found.append(Answer(title, question, "–", "This model reads no text: there is nothing to ask it."))
        elif said is None:
            found.append(Answer(title, question, "–", "Not measured.", command(run, part)))
        else:
            found.append(Answer(title, question, *said))
    return found


def command(run: Run, part: str) -> str:
    """The command that measures a part of a run."""
    if run.published:
        return f"lightning evaluate {part} --model {shlex.quote(str(run.published.get('run')))} --shards DIR"
    return f"lightning evaluate {part} --run {shlex.quote(str(run.path))}"


def copies_beside(runs: Sequence[Run]) -> str:
    """What must stand wherever a distance stands: the share of copies among drawn images, and of held-out ones.

    Of many runs how many were measured, and the least and the greatest share.
    """
    found = {run.name: copies_of(run) for run in runs}
    if len(runs) == 1:
        return f"Copies among drawn images: {next(iter(found.values()))}."
    if len(runs) <= FEW:
        return f"Copies among drawn images: {', '.join(f'{name} {text}' for name, text in found.items())}."
    shares = [share for run in runs if (share := run.summary("copies").get("copy_share_pixels")) is not None]
    if not shares:
        return "Copies among drawn images: not measured of any run (lightning evaluate copies)."
    ends = f"{percent(min(shares))} to {percent(max(shares))}"
    return f"Copies among drawn images: {ends}, measured of {len(shares)} of {len(runs)} runs."


def copies_of(run: Run) -> str:
    """``3 % (held-out images 1 %)``, or that it was not measured."""
    figures = run.summary("copies")
    share = figures.get("copy_share_pixels")
    if share is None:
        return "not measured (lightning evaluate copies)"
    held = figures.get("held_out/copy_share_pixels")
    return f"{percent(share)} (held-out images {percent(held)})" if held is not None else percent(share)


def percent(share: float | None) -> str:
    """A share in words; small ones with a decimal.

    Example:
        >>> percent(0.0), percent(0.013), percent(0.57), percent(1.0), percent(None)
        ('0 %', '1.3 %', '57 %', '100 %', '–')
    """
    if share is None:
        return "–"
    digits = 1 if 0 < share < 0.1 and round(1000 * share) % 10 else 0
    return f"{100 * share:.{digits}f} %"


def _copies(figures: Figures) -> tuple[str, str] | None:
    share, n = figures.get("copy_share_pixels"), figures.get("n")
    if share is None:
        return None
    held, exact = (figures.get(f"{control}/copy_share_pixels") for control in ("held_out", "exact"))
    of = f"of {n:,.0f} drawn images" if n else "of the drawn images"
    return percent(share), (
        f"{percent(share)} {of} lie nearer to a training image than 99 % of the held-out images do; of held-out images "
        f"themselves {percent(held)} do, of copies {percent(exact)}."
    )


def _coverage(figures: Figures) -> tuple[str, str] | None:
    name = next((name for name in figures if re.fullmatch(r"coverage_k5_\w+", name)), None)
    if name is None:
        return None
    ceiling = figures.get(name.replace("coverage_", "coverage_ceiling_"))
    held, one = (figures.get(f"{control}/{name}") for control in ("held_out", "one_image"))
    return percent(figures[name]), (
        f"{percent(figures[name])} of held-out real images have a drawn image among their nearest; other real images reach "
        f"{percent(held)} (a perfect generator {percent(ceiling)}), one image repeated {percent(one)}."
    )


def _utility(figures: Figures) -> tuple[str, str] | None:
    alone = figures.get("utility_synthetic_auroc")
    if alone is None:
        return None
    real, chance = (figures.get(f"utility_{arm}_auroc") for arm in ("real", "shuffled"))
    said = (
        f"A classifier that learns from drawn images alone tells findings on real images with AUROC {value_text(alone)}; from "
        f"as many real images with {value_text(real)}, from shuffled labels with {value_text(chance)} (0.5 is chance)."
    )
    gain, low, high = (figures.get(f"utility_gain{end}") for end in ("", "_low", "_high"))
    if gain is not None:
        ends = (
            f" [{value_text(low, digits=3)}, {value_text(high, digits=3)}]"
            if low is not None and high is not None
            else ""
        )
        said += f" Drawn images beside real ones change it by {value_text(gain, sign=True, digits=3)}{ends}."
    return value_text(alone), said


def _alignment(figures: Figures) -> tuple[str, str] | None:
    found = figures.get("alignment_classifier_auroc")
    if found is None:
        return None
    real, chance = (figures.get(f"{control}/alignment_classifier_auroc") for control in ("real", "shuffled"))
    return value_text(found), (
        f"A classifier finds in drawn images what their prompts asked for with AUROC {value_text(found)}; in the real images "
        f"of the same prompts with {value_text(real)}, with the prompts shuffled {value_text(chance)} (0.5 is chance)."
    )


def _absent(figures: Figures) -> tuple[str, str] | None:
    found = figures.get("absent_auroc")
    if found is None:
        return None
    shuffled, silent = figures.get("absent_auroc_shuffled"), figures.get("no_target_accuracy")
    said = (
        f"In {percent(found)} of comparisons the map of a finding that is there says more than that of one that is not; with "
        f"presence shuffled in {percent(shuffled)} (blind to words: 50 %)."
    )
    if silent is not None:
        said += f" Its map stays silent for {percent(silent)} of absent findings (blind: 5 %)."
    return value_text(found), said


#: part of ``lightning evaluate`` -> title, question, its sentence.
ASKED: dict[str, tuple[str, str, Callable[[Figures], tuple[str, str] | None]]] = {
    "copies": ("Copies", "Does it hand out its patients?", _copies),
    "coverage": ("Coverage", "Does it draw everything that occurs?", _coverage),
    "utility": ("Useful for training", "Does a classifier learn anything from it?", _utility),
    "alignment": ("Says what it was asked", "Is the finding of the prompt in the image?", _alignment),
    "absent": ("Silent when absent", "Does a word stay silent when its finding is not there?", _absent),
}
