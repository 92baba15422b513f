"""What the measured names mean to a reader, and how values are printed. Source: own; definitions: spec/tradeoff.md 6, 7."""

import math
import re
from collections.abc import Iterable

from meddiff.reports.page.saliency_wording import SALIENCY, saliency_label

MINUS = "−"

DASH = "–"

#: the last part of a grounding name -> (label, what it is)
GROUNDING = {
    "cnr": ("CNR", "contrast to noise ratio: (mean inside − mean outside) / pooled standard deviation, no unit"),
    "cnr_abs": ("|CNR|", "absolute contrast to noise ratio, no unit"),
    "auroc": ("AUROC", "area under the ROC curve over pixels, 0 to 1, chance 0.5"),
    "top1": ("Top-1 (pointing game)", "share of phrases whose hottest pixel lies inside, 0 to 1"),
    "miou": ("mIoU", "mean intersection over union of foreground and background, 0 to 1"),
}
#: the first part of a grounding name -> on what, or of what, the same is measured
PLACES = {"mask": "on exact masks", "eos": "of the end token"}
#: what else the maps are asked -> (label, what it is, is more better)
QUESTIONS = {
    "confounder_cnr": (
        "CNR on confounders",
        "the word's map on tubes, markers, pacemakers: high if it points there",
        -1,
    ),
    "own_beats_other": (
        "own finding first",
        "share of pairs in which the map fits its own finding's mask better than another's in the image, chance 0.5",
        1,
    ),
    "fallback": ("without a query word", "share of phrases that name no query word: all words are averaged", 0),
}
#: what of the CNR cannot be had without grounding is the least of the gains under these controls: name -> under which
GAINS = {
    "absent": "absent finding asked",
    "other_finding": "another finding's mask",
    "twin": "the twin's place",
    "other_patient": "another patient's box of the class",
    "mirrored_box": "the box mirrored",
}
#: names of what is logged of it -> (label, what it is, is more better)
GAIN_NAMES = {
    "gain": (
        "grounding gain",
        "CNR less what the same maps score under their own controls: the least in size, 0 where they disagree in sign",
        1,
    ),
    "gain_low": ("grounding gain, lower end", "of its 95 % interval over images", 0),
    "gain_high": ("grounding gain, upper end", "of its 95 % interval over images", 0),
    **{f"gain_{name}": (f"gain: {text}", "CNR less the CNR under this control", 1) for name, text in GAINS.items()},
}
#: what the numbers are compared with, by its name in controls.json
CONTROLS = {
    "prior": "location prior: only where the finding usually is",
    "centre": "centre prior: always the middle of the image",
    "random": "random maps",
    "shuffled_captions": "phrase of another image about the same class",
    "absent_finding": "asked for a finding that is not there",
    "base": "base weights, before training",
    "mirrored_own": "mirrored pairs: where the finding lies",
    "mirrored_twin": "mirrored pairs: where it lies in the twin",
    "real_vs_real": "real against other real images",
    "autoencoder": "real images through the autoencoder",
    "untrained": "untrained model",
    "noise": "noise",
}
EXTRACTORS = {
    "domain": "domain-classifier features",
    "inception": "Inception features",
    "inception_paper": "Inception features, fed as the paper does (normalised twice)",
    "xrv": "XRV features",
    "xrv224": "XRV features at 224 px",
    "xrv512": "XRV features at 512 px",
    "xrv_gap": "XRV features, globally pooled",
    "raddino": "RadDINO features",
    "raddino_299": "RadDINO features of images squashed to 299 px",
}
FIDELITY = {
    "ms_ssim": ("MS-SSIM", "similarity among images of one prompt, 0 to 1; lower is more diverse"),
    "classifier_auc": ("Classifier AUC", "does a classifier find the prompted finding? 0 to 1, chance 0.5"),
}
#: tokens of a caption, as the mechanism's figures name them
TOKENS = {
    "finding": "the finding's word",
    "side": "side words",
    "place": "words of place",
    "severity": "words of severity",
    "denial": "denials",
    "function": "function words",
    "other": "other words",
    "words": "all words",
    "start": "the start token",
    "end": "the end token",
    "padding": "padding",
}
#: the first part of a figure of the mechanism -> (label, what it is); {0}, {1} are its other parts
MECHANISM = {
    "attention": (
        "attention on {0}",
        "share of cross-attention over all tokens, mean over layers, heads, pixels, timesteps",
    ),
    "cnr": ("CNR of {0} on the {1}", "contrast to noise ratio of the map of these tokens on such a mask"),
    "moved": (
        "{0} moved",
        "length of the change of the state since the base tower, over the length of the base's state",
    ),
    "probe": ("{1} read off {0}", "balanced accuracy of a linear probe on held-out captions, mean over findings"),
}
#: what a probe is asked
ASKED = {"named": "finding", "denied": "denied or not", "side": "side"}
#: which distance stands for fidelity, if a run has several
FIDELITY_ORDER = ("fd_domain", "fid_xrv512", "fid_xrv224", "fid_xrv_gap", "fid_xrv", "fid_inception")
#: of a path in the trade-off, wherever it is drawn: what a run's row of it has
COLUMNS = ("run", "encoder", "prompt", "images", "distance", "cnr")
#: which figure stands for grounding, and which ones a chart may be drawn over, if a run has several
CNR_ORDER = ("grounding/macro_cnr", "grounding/cnr")
GAIN = "grounding/gain"
HEADLINE = (GAIN, *CNR_ORDER, *(f"grounding/macro_{name}" for name in ("auroc", "top1", "miou")))
HEADLINE += ("grounding/mask_macro_cnr", "grounding/own_beats_other")


def parts(name: str) -> tuple[str, bool, str, str]:
    """``mask_macro_cnr`` -> ("cnr", True, "mask", ""), ``Edema/cnr`` -> ("cnr", False, "", "Edema")."""
    group, _, metric = name.rpartition("/")
    place = next((place for place in PLACES if metric.startswith(f"{place}_")), "")
    metric = metric.removeprefix(f"{place}_")
    return metric.removeprefix("macro_"), metric.startswith("macro_"), place, group


def label(key: str) -> str:
    """``grounding/macro_cnr`` -> ``macro CNR``; an unknown name is shown as it is."""
    room, _, name = key.partition("/")
    if room == "grounding":
        metric, macro, place, group = parts(name)
        if metric in GROUNDING:
            text = ("macro " if macro else "") + GROUNDING[metric][0]
            return text + (f" {PLACES[place]}" if place else "") + (f", {group}" if group else "")
        return (QUESTIONS | GAIN_NAMES)[name][0] if name in QUESTIONS or name in GAIN_NAMES else name
    if room == "fidelity":
        if match := re.fullmatch(r"(?:(.+)/)?(fid|fd|kid)_(\w+)", name):
            kind = "Kernel distance" if match[2] == "kid" else "Fréchet distance"
            sampler = f", drawn by {match[1]}" if match[1] else ""
            return f"{kind}, {EXTRACTORS.get(match[3], match[3] + ' features')}{sampler}"
        return FIDELITY[name][0] if name in FIDELITY else name
    if room == "mechanism":
        return mechanism_label(name)
    if room == "saliency":
        return saliency_label(name)
    return key


def mechanism_label(name: str) -> str:
    """``cnr/end/finding`` -> ``CNR of the end token on the finding``; an unknown name is shown as it is.

    Example:
        >>> mechanism_label("probe/denied/end"), mechanism_label("moved/finding")
        ('Denied or not read off the end token', "The finding's word moved")
    """
    kind, *rest = name.split("/")
    if kind not in MECHANISM or len(rest) != 1 + (kind in ("cnr", "probe")):
        return name
    token, second = (rest[1], ASKED.get(rest[0], rest[0])) if kind == "probe" else (rest[0], rest[-1].replace("_", " "))
    text = MECHANISM[kind][0].format(TOKENS.get(token, token), second)
    return text[:1].upper() + text[1:]


def meaning(key: str) -> str:
    """What a name measures and in which unit; "" if that is not known."""
    room, _, name = key.partition("/")
    if room == "saliency":
        return SALIENCY.get((*name.split("/"), "")[1], ("", ""))[1]
    if room == "mechanism":
        return MECHANISM.get(name.partition("/")[0], ("", ""))[1]
    if room == "fidelity":
        name = name.rpartition("/")[2]
        if name.startswith(("fid_", "fd_")):
            features = EXTRACTORS.get(name.partition("_")[2], "the features")
            return f"squared distance of two Gaussians, in the units of {features}; depends on N"
        if name.startswith("kid_"):
            return "squared maximum mean discrepancy of features, no unit"
        return FIDELITY.get(name, ("", ""))[1]
    if name in QUESTIONS or name in GAIN_NAMES:
        return (QUESTIONS | GAIN_NAMES)[name][1]
    metric, macro, _, _ = parts(name)
    text = GROUNDING.get(metric, ("", ""))[1]
    return f"{text}; mean of class means" if text and macro else text


def gain_name(control: str) -> str:
    """What a row of gains is called; the least of them by itself."""
    return GAINS.get(control, "grounding gain (the least)" if control == "least" else control.replace("_", " "))


def term(key: str) -> str:
    """Where a name is explained, one place for a figure of all classes and samplers: ``term-grounding-cnr``."""
    room, _, name = key.partition("/")
    return f"term-{room}-{name.rpartition('/')[2]}"


def glossary(keys: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """(anchor, label, meaning, what is better) of each figure among ``keys``, and of every control."""
    better = {1: "more", -1: "less", 0: ""}
    found: dict[str, tuple[str, str, str]] = {}
    for key in sorted({"grounding/cnr", *keys}, key=lambda key: (key.count("/"), key)):
        room, _, name = key.partition("/")
        plain = f"{room}/{name.rpartition('/')[2]}"
        if meaning(plain):
            found.setdefault(term(key), (label(plain), f"{meaning(plain)}.", better[direction(plain)]))
    controls = [(f"term-control-{name}", "control", f"{text}.", "") for name, text in CONTROLS.items()]
    return [(anchor, *texts) for anchor, texts in found.items()] + controls


def direction(key: str) -> int:
    """1: more is better, -1: less is better, 0: neither."""
    room, _, name = key.partition("/")
    if room == "grounding":
        metric, _, place, _ = parts(name)
        if name in QUESTIONS or name in GAIN_NAMES:
            return (QUESTIONS | GAIN_NAMES)[name][2]
        return int(metric in GROUNDING and place != "eos")
    name = name.rpartition("/")[2]
    if name.startswith(("fid_", "fd_", "kid_")) or name == "ms_ssim" or "loss" in name:
        return -1
    return 1 if name == "classifier_auc" else 0


def fidelity_keys(keys: Iterable[str]) -> list[str]:
    """The Frechet distances among ``keys``, the one that stands for fidelity first; kernel distances after them."""
    found = {key for key in keys if re.fullmatch(r"fidelity/(fid|fd|kid)_\w+", key)}
    order = {f"fidelity/{name}": place for place, name in enumerate(FIDELITY_ORDER)}
    return sorted(found, key=lambda key: (key.startswith("fidelity/kid"), order.get(key, 99), key))


def value_text(value: float | None, sign: bool = False, digits: int | None = None) -> str:
    """Three figures that matter, at least two decimals below 100: 0.934, 1.05, 12.34, 183.0; a true minus sign.

    Args:
        sign: write a plus before what is positive.
        digits: decimals, where the numbers of a column are to be alike.
    """
    if value is None:
        return DASH
    size = abs(value)
    if digits is not None:
        pass
    elif size == 0:
        digits = 2
    elif size < 0.01:
        digits = min(6, 1 - math.floor(math.log10(size)))
    else:
        digits = 3 if size < 1 else 2 if size < 100 else 1 if size < 1000 else 0
    text = f"{size:,.{digits}f}"
    nought = not any(c in "123456789" for c in text)
    return ("" if nought else MINUS if value < 0 else "+" if sign else "") + text


def count_text(value: float | int | None) -> str:
    """16000 -> ``16,000``."""
    return DASH if value is None else f"{round(value):,}"


def compact(value: float) -> str:
    """16000 -> ``16k``, 7680000 -> ``7.68M``; for axes."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
