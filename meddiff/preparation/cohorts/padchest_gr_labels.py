"""PadChest's labels as findings of the paper, and what a sentence of PadChest-GR denies.

Source: Bustos et al. 2020 (PadChest's labels); the mapping is own. Infiltrates and the alveolar and interstitial pattern are
opacities of which nothing says that they are one of the other findings; a hydropneumothorax is both of its parts.
"""

import re
from collections.abc import Sequence

from meddiff.preparation.cohorts.boxes_csv import in_order

#: Label of PadChest -> findings of the paper. All others keep their own name.
CLASSES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("atelectasis", "laminar atelectasis", "lobar atelectasis", "segmental atelectasis", "total atelectasis",
         "round atelectasis", "atelectasis basal"),
        ("Atelectasis",),
    ),
    "cardiomegaly": ("Cardiomegaly",),
    **dict.fromkeys(("consolidation", "air bronchogram"), ("Consolidation",)),
    **dict.fromkeys(("pulmonary edema", "edema"), ("Edema",)),
    **dict.fromkeys(
        ("infiltrates", "alveolar pattern", "interstitial pattern", "ground glass pattern", "increased density"),
        ("Lung Opacity",),
    ),
    **dict.fromkeys(
        ("pleural effusion", "loculated pleural effusion", "loculated fissural effusion"), ("Pleural Effusion",)
    ),
    **dict.fromkeys(("pneumonia", "atypical pneumonia"), ("Pneumonia",)),
    "pneumothorax": ("Pneumothorax",),
    "hydropneumothorax": ("Pleural Effusion", "Pneumothorax"),
}  # fmt: skip
#: Labels that name no finding.
NO_CLASS = ("normal", "exclude", "unchanged", "suboptimal study")
#: How a sentence without labels names what it denies.
NAMES = {
    "Atelectasis": r"atelecta\w+",
    "Cardiomegaly": r"cardiomegaly|(?:cardiac|heart) (?:silhouette|size|shadow)|cardiothoracic (?:index|ratio)",
    "Consolidation": r"consolidat\w+",
    "Edema": r"o?edema",
    "Lung Opacity": r"opaci\w+|infiltrat\w+",
    "Pleural Effusion": r"(?<!pericardial )effusions?|pleural fluid",
    "Pneumonia": r"pneumonia\w*",
    "Pneumothorax": r"pneumothora\w+",
}
_DENIED = [(label, re.compile(rf"\b(?:{words})\b", re.IGNORECASE)) for label, words in NAMES.items()]
#: Class of a sentence that denies something else.
OTHER = "Other"


def classes_of(text: str, labels: Sequence[str], abnormal: bool) -> tuple[str, ...]:
    """The classes that a sentence names: its labels, or, where one that denies has none, what its words name.

    Args:
        text: of the sentence.
        labels: of PadChest, in lower case.
        abnormal: it says that something is there; else it denies it.

    Returns:
        findings in the order of the paper, then PadChest's own labels; :data:`OTHER` for a denial of something else.

    Example:
        >>> classes_of("Small effusion.", ["pleural effusion", "nodule"], True), classes_of("No effusion.", [], False)
        (('Pleural Effusion', 'nodule'), ('Pleural Effusion',))
    """
    known = [one for label in labels for one in CLASSES.get(label, ())]
    own = [label for label in labels if label not in CLASSES and label not in NO_CLASS]
    if not abnormal and not known and not own:
        known = [label for label, words in _DENIED if words.search(text)]
        own = [] if known else [OTHER]
    return (*in_order(known), *own)
