"""What a report is about. Source: own."""

from collections.abc import Sequence

from meddiff.reports.page.derived import asked_n, fidelity_n, one_n, phrases_n
from meddiff.reports.page.wording import QUESTIONS, fidelity_keys, first_of, parts
from meddiff.runs.folder import Run

CNR = ("grounding/macro_cnr", "grounding/cnr")

AUROC = ("grounding/macro_auroc", "grounding/auroc")

TOP1 = ("grounding/macro_top1", "grounding/top1")


class Subject:
    """What the sections are about: the runs, and which of the measured names stand for what.

    Args:
        runs: one or more.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        self.keys = sorted({key for run in runs for evaluation in run.evaluations for key in evaluation.values})
        self.cnr, self.auroc, self.top1 = (first_of(self.keys, wanted) for wanted in (CNR, AUROC, TOP1))
        self.distances = fidelity_keys(self.keys)
        self.distance = self.distances[0] if self.distances else "fidelity/fd_domain"
        self.n_phrases = one_n([phrases_n(run) for run in runs], "phrases")
        self.n_images = one_n([fidelity_n(run) for run in runs], "images")

    def n_of(self, key: str) -> str:
        """The N of a name, for an axis."""
        room, _, name = key.partition("/")
        if room == "grounding" and (name in QUESTIONS or parts(name)[2]):
            return one_n([asked_n(run, name) for run in self.runs], "pairs" if name in QUESTIONS else "phrases")
        return self.n_phrases if room == "grounding" else self.n_images

    def control_of(self, key: str) -> tuple[tuple[str, ...], str]:
        """Where the control of a name lies in controls.json, and what it is called."""
        room, _, name = key.partition("/")
        if room == "grounding":
            return ("grounding", "prior", name), "location prior"
        return ("fidelity", name, "real_vs_real"), "real against real"
