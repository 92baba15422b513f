"""Every logged name with what it means, its unit, what is better, what it must be read against, and where it comes from.

Words and directions are those of :mod:`meddiff.reports.page.wording`, so that pages, charts and this list cannot say
different things; ``python tools/glossary.py`` writes ``docs/glossary.md`` of it. Source: own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from meddiff.common.files import atomic_open
from meddiff.reports.page.beyond_wording import READ, beyond_rows
from meddiff.reports.page.saliency_wording import SALIENCY
from meddiff.reports.page.wording import CONTROLS, EXTRACTORS, GAIN_NAMES, QUESTIONS, direction, label, meaning, parts

BETTER = {1: "more", -1: "less", 0: "–"}
#: What a score of maps has for a unit, and who defined it.
SCORES = {
    "cnr": ("none", "Boecking et al. 2022; Dombrowski et al. 2024, Table 3"),
    "cnr_abs": ("none", "Boecking et al. 2022, absolute"),
    "auroc": ("share", "Dombrowski et al. 2024, Table 1"),
    "top1": ("share", "pointing game, Zhang et al. 2016; Dombrowski et al. 2024, Table 1"),
    "miou": ("share", "Boecking et al. 2022"),
}
PRIORS = "location prior; absent finding"
#: name of grounding that has an entry of its own -> unit, control, source
ASKED = {
    "confounder_cnr": ("none", "CNR on the finding", "own"),
    "own_beats_other": ("share", "chance 0.5; base and untrained weights", "own"),
    "fallback": ("share", "–", "own"),
}
#: what the grounding gain is read against: nothing is left of it without grounding
NO_GROUNDING = "0; CNR"
#: feature extractor -> source of its distances
FEATURES = {
    "domain": "Heusel et al. 2017, on a classifier trained on the cohort",
    "inception": "Heusel et al. 2017",
    "inception_paper": "Dombrowski et al. 2024, Tables 2 and 4",
    "xrv512": "Dombrowski et al. 2024, Table 4, as written",
    "xrv224": "Dombrowski et al. 2024, Table 4, as computed",
    "xrv_gap": "later papers on chest X-rays",
    "raddino": "Heusel et al. 2017, on Perez-Garcia et al. 2025",
    "raddino_299": "benchmarks of 2025 that squash images to 299 px",
}
REAL = "real against real; autoencoder; untrained; noise"
IMAGES = {
    "ms_ssim": ("share", "real images of the same prompts", "Wang et al. 2003; Dombrowski et al. 2024, Table 4"),
    "classifier_auc": ("share", "real images; chance 0.5", "Dombrowski et al. 2024, Table 5"),
}
#: name -> label, meaning, unit, better
TRAINING = {
    "images": (
        "training images",
        "images the optimiser has seen, over all ranks: the x-axis of every curve",
        "images",
        0,
    ),
    "train/loss": ("training loss", "mean squared error of the denoiser's prediction, weighted", "none", -1),
    "val/loss": ("validation loss", "the same on the split of validation, without caption dropout", "none", -1),
    "test/loss": ("test loss", "the same on the split of test", "none", -1),
    "val/prototype_usage_entropy": ("use of prototypes", "prototypes/usage_entropy, of validation", "share", 1),
    "val/prototype_dead_share": ("dead prototypes", "prototypes/dead_share, of validation", "share", -1),
    "val/prototype_mean_cosine": ("likeness of prototypes", "prototypes/mean_cosine, of validation", "none", -1),
    "train/skipped_steps": ("skipped steps", "steps left out so far because something was not finite", "steps", -1),
    "learning_rate/unet": ("learning rate, U-Net", "the rate of the step that is logged", "none", 0),
    "learning_rate/text_encoder": ("learning rate, text encoder", "the same of a learnable text encoder", "none", 0),
    "throughput/images_per_s": ("images a second", "of all ranks, without evaluations and validation", "images/s", 1),
    "throughput/mfu": ("MFU", "model FLOPs as a share of the devices' peak", "share", 1),
    "throughput/data_wait": ("wait for data", "share of training spent waiting for batches", "share", -1),
    "throughput/evaluation_share": ("evaluations", "share of the time so far spent in evaluations", "share", -1),
    "throughput/memory_peak_gib": ("peak of memory", "allocated on the GPU, or held by the process", "GiB", -1),
}
PUBLISHED = "Weng et al. 2026 (Patronus), Table 1"
UNTRAINED = "the untrained encoder"
#: name -> label, meaning, unit, better, control, source
PROTOTYPES = {
    "latent_auroc": ("latent AUROC", "mean AUROC of a logistic probe of each label on activations, 5 folds", "share", 1,
                     f"{UNTRAINED}; chance 0.5", PUBLISHED),
    "tad": ("TAD", "how far the best single prototype of each captured label is ahead of the second, summed", "none", 1,
            UNTRAINED, PUBLISHED),
    "captured": ("labels captured", "labels that one prototype tells (AUROC 0.75) and that no other label explains",
                 "labels", 1, UNTRAINED, PUBLISHED),
    "latent_auroc_untrained": ("latent AUROC, untrained", "the same of the untrained encoder", "share", 0, "–", "own"),
    "tad_untrained": ("TAD, untrained", "the same of the untrained encoder", "none", 0, "–", "own"),
    "captured_untrained": ("labels captured, untrained", "the same of the untrained encoder", "labels", 0, "–", "own"),
    "usage_entropy": ("use of prototypes", "entropy of their shares of the variance over images, over its greatest value",
                      "share", 1, "–", "own"),
    "dead_share": ("dead prototypes", "share of prototypes that vary by less than 0.001 over images", "share", -1, "–", "own"),
    "duplicates": ("duplicates", "share of prototypes whose activations follow another's", "share", -1, "–", "own"),
    "mean_cosine": ("likeness of prototypes", "mean absolute cosine of two prototypes", "none", -1, "–", "own"),
    "named_share": ("named prototypes", "share whose activations follow a label or a word, corrected for all tries", "share",
                    1, "the share under shuffled labels", "own"),
    "named_share_shuffled": ("named by chance", "the same under shuffled labels", "share", 0, "–", "own"),
    "t_half": ("half-way timestep", "median timestep at which half of a raised prototype is there, paired", "timesteps", 0,
               "low-pass images; a random prototype", "Weng et al. 2026 (Patronus), emergence"),
    "odd": ("oddness of edits", "median Mahalanobis distance of the edited activations, real ones being at 1", "none", -1,
            "1", "own"),
    "raised_by": ("raised by", "mean change of a prototype's activation in the picture that was drawn with it raised", "none",
                  1, "0", "own"),
    "reconstruction_mse": ("reconstruction error", "mean squared error from inverted noise and the image's own prototypes",
                           "none", -1, "no prototypes; another image's", "own"),
    "variation_mse": ("variation error", "mean squared error from fresh noise and the image's own prototypes", "none", -1,
                      "no prototypes; another image's", "own"),
}  # fmt: skip
COUNTS = {
    "grounding/n": ("N of phrases", "phrases with a defined map that the averages are over", "phrases", 0),
    "grounding/excluded": ("excluded", "phrases left out; `grounding/excluded.csv` says why", "phrases", 0),
    "fidelity/n": ("N of images", "images drawn, and real images they are compared with", "images", 0),
}


@dataclass(frozen=True)
class Entry:
    """One logged name.

    Attributes:
        key: as it is logged.
        better: "more", "less" or a dash.
        control: what it must be read against.
    """

    key: str
    label: str
    meaning: str
    unit: str
    better: str
    control: str
    source: str

    @property
    def anchor(self) -> str:
        """Where the page explains it: one place for a figure of all classes and samplers."""
        return anchor(self.key)


def anchor(key: str) -> str:
    """The anchor of a logged name.

    Example:
        >>> anchor("grounding/Edema/cnr"), anchor("fidelity/pndm/fd_domain"), anchor("images")
        ('term-grounding-cnr', 'term-fidelity-fd_domain', 'term-images')
    """
    room, slash, name = key.partition("/")
    if room == "saliency":  # TOOL/FIGURE/tTIMESTEP
        return f"term-{room}-{(*name.split('/'), name)[1]}"
    return f"term-{room}-{name.rpartition('/')[2]}" if slash else f"term-{room}"


def grounding_entries() -> list[Entry]:
    """Grounding gain; scores of maps: micro, macro, on boxes, on masks, of the end token; what else the maps are asked."""
    names = [prefix + name for name in SCORES for prefix in ("", "macro_")]
    names += [f"{place}_{name}" for place in ("mask", "eos") for name in ("cnr", "macro_cnr", "auroc", "top1")]
    found = [_entry(f"grounding/{name}", "none", NO_GROUNDING, "own") for name in GAIN_NAMES]
    for name in names:
        unit, source = SCORES[parts(name)[0]]
        found.append(_entry(f"grounding/{name}", unit, PRIORS, source))
    return found + [_entry(f"grounding/{name}", *ASKED[name]) for name in QUESTIONS] + _plain(COUNTS, "grounding/")


def fidelity_entries() -> list[Entry]:
    """Distances of drawn to real images, their likeness, what a classifier finds in them."""
    found = []
    for name, source in FEATURES.items():
        frechet = "fd" if name == "domain" or name.startswith("raddino") else "fid"
        found.append(_entry(f"fidelity/{frechet}_{name}", "squared feature units", REAL, source))
    found += [_entry(f"fidelity/kid_{name}", "none", REAL, "Binkowski et al. 2018") for name in FEATURES]
    found += [_entry(f"fidelity/{name}", *rest) for name, rest in IMAGES.items()]
    return found + _plain(COUNTS, "fidelity/")


def saliency_entries() -> list[Entry]:
    """Figures of the maps of one tool at one timestep."""
    control = {"cnr": "location prior; gain over an absent finding", "gain_absent": "0"}
    return [
        Entry(f"saliency/attention/{name}/t381", title, text, "none", "more" if name != "cnr_absent" else "–",
              control.get(name, "location prior"), "own")
        for name, (title, text) in SALIENCY.items()
    ]  # fmt: skip


def prototype_entries() -> list[Entry]:
    """Figures of a model with prototypes."""
    return [
        Entry(f"prototypes/{name}", title, text, unit, BETTER[sign], control, source)
        for name, (title, text, unit, sign, control, source) in PROTOTYPES.items()
    ]


def beyond_entries() -> list[Entry]:
    """Figures of coverage, copies and absent findings."""
    return [Entry(*one[:4], BETTER[one[4]], *one[5:]) for one in beyond_rows()]


def training_entries() -> list[Entry]:
    """What is logged of training itself."""
    return _plain(TRAINING, "")


def all_entries() -> list[Entry]:
    """Of every room."""
    rooms = (grounding_entries, fidelity_entries, saliency_entries, prototype_entries, beyond_entries, training_entries)
    return [one for room in rooms for one in room()]


def control_entries() -> list[tuple[str, str]]:
    """(name in ``controls.json``, what it is)."""
    return list(CONTROLS.items())


def unexplained(keys: Iterable[str]) -> list[str]:
    """The logged names among ``keys`` that no entry is of; of classes, samplers and controls the figure counts.

    Example:
        >>> unexplained(["grounding/Edema/cnr", "grounding/prior/macro_cnr", "fidelity/pndm/fd_domain", "epoch"])
        ['epoch']
    """
    known = {one.anchor for one in all_entries()}
    return [key for key in keys if anchor(key) not in known]


def _entry(key: str, unit: str, control: str, source: str) -> Entry:
    return Entry(key, label(key), meaning(key), unit, BETTER[direction(key)], control, source)


def _plain(rows: dict[str, tuple[str, str, str, int]], room: str) -> list[Entry]:
    return [
        Entry(key, title, text, unit, BETTER[sign], "–", "own")
        for key, (title, text, unit, sign) in rows.items()
        if key.startswith(room)
    ]


def page() -> str:
    """``docs/glossary.md``."""
    assert set(FEATURES) <= set(EXTRACTORS), "every extractor has its words"
    lines = [INTRODUCTION]
    for title, text, entries in (
        ("Grounding", GROUNDING, grounding_entries()),
        ("Image quality", FIDELITY, fidelity_entries()),
        ("Maps by timestep", BY_TIMESTEP, saliency_entries()),
        ("Prototypes", TOLD, prototype_entries()),
        ("Coverage, copies, absent findings", READ, beyond_entries()),
        ("Training", LOSSES, training_entries()),
    ):
        lines += [f"## {title}", "", text, "", "| name | called | what it is | unit | better | read against | source |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for one in entries:
            cells = (one.label, one.meaning, one.unit, one.better, one.control, one.source)
            lines.append(f'| <a id="{one.anchor}"></a>`{one.key}` | ' + " | ".join(map(_cell, cells)) + " |")
        lines.append("")
    lines += ["## Controls", "", CONTROLLED, "", "| name | what it is |", "|---|---|"]
    lines += [f'| <a id="term-control-{name}"></a>`{name}` | {_cell(text)} |' for name, text in control_entries()]
    lines += ["", "## Best values", "", BEST, ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"([|<>*_])", r"\\\1", text)


INTRODUCTION = """# Glossary

What each logged figure means. The names are the same in W&B, MLflow, TensorBoard, `metrics.jsonl`, `tradeoff.csv` and
the report ([what is logged where](tracking.md)). This page is written by `python tools/glossary.py`, from the words
that the report and the charts use.
"""
GROUNDING = (
    "Each figure is over N phrases (`grounding/n`). Without a prefix it is a mean over samples (micro), `macro_` "
    "is a mean of the classes' means. `grounding/CLASS/NAME` is that of one class. `mask_` is on exact masks "
    "instead of boxes, `eos_` of the end token's map. The grounding gain is what of the CNR (micro) is left under "
    "[its controls](controls.md#grounding-gain). Read all beside their [controls](controls.md)."
)
FIDELITY = (
    "Each distance is over N images (`fidelity/n`); only figures of one N compare. FID means Inception's "
    "features, and XRV's where the literature says so; the Frechet distance of our own classifier's features is "
    "FD. `kid_` is the kernel distance over the same features. `fidelity/SAMPLER/NAME` is that of images drawn by "
    "another sampler."
)
BY_TIMESTEP = (
    "`saliency/TOOL/FIGURE/tTIMESTEP`: of a few fixed phrases while a model trains, which show a course and no result "
    "([what the tools are](visual_analysis.md))."
)
TOLD = "Of a model that is told prototypes ([page](patronus.md)); each figure on held-out images."
LOSSES = "Rows of training have `images`; a share is between 0 and 1."
CONTROLLED = (
    "Logged beside the headline figures as `grounding/CONTROL/NAME` and `fidelity/CONTROL/NAME`, the same number "
    "at every evaluation; all of them stand in `controls.json`."
)
BEST = (
    "In the summary of a run (W&B): `best/NAME` is the best value of a figure over all evaluations, greatest or "
    "least as the tables above say; `best_cnr` and `best_distance` are those of the two sides, "
    "`cnr_at_best_distance`, `images_at_best_cnr` and `images_at_best_distance` say what else was true then. The "
    "name alone keeps the last value."
)

if __name__ == "__main__":
    with atomic_open(Path(__file__).parents[1] / "docs" / "glossary.md", "w") as stream:
        stream.write(page())
