"""What a phantom's impression says, word by word: where each finding is named, and whether it is there.

Because the words were written for a known scene, nothing has to be guessed: a class that is named and not in the picture is
denied (the grammar never asserts what is not there, and impressions of Open-I are used only where that holds, too). A text
tower is taught with these (:mod:`lightning_modules.text_tower`), and probed for them. Source: own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from meddiff.common.findings import FINDINGS

#: Names of a finding in an impression of a chest.
CHEST_NAMES: dict[str, str] = {
    "Atelectasis": r"atelecta\w+(?: (?:bands?|changes?))?",
    "Cardiomegaly": r"cardiomegaly|cardiac|heart|enlarge\w+",
    "Consolidation": r"consolidat\w+",
    "Edema": r"edema",
    "Lung Opacity": r"opaci\w+",
    "Pleural Effusion": r"pleural (?:effusions?|fluid(?: collections?)?)|effusions?",
    "Pneumonia": r"\w*pneumoni\w+(?: infiltrates?)?",
    "Pneumothorax": r"pneumothora\w+",
}
#: Names of the shape that stands for it in the source domain.
SHAPE_NAMES: dict[str, str] = {
    "Atelectasis": r"bars?|stripes?",
    "Cardiomegaly": r"swelling|enlarge\w+|disc",
    "Consolidation": r"squares?|blocks?",
    "Edema": r"fog|mist",
    "Lung Opacity": r"balls?|spots?",
    "Pleural Effusion": r"wedges?|triangles?",
    "Pneumonia": r"mosaics?|chequerboards?",
    "Pneumothorax": r"crescents?|sickles?",
}
_PATTERNS = {
    domain: [(label, re.compile(rf"\b(?:{names[label]})\b", re.IGNORECASE)) for label in FINDINGS]
    for domain, names in (("chest", CHEST_NAMES), ("source", SHAPE_NAMES))
}


@dataclass(frozen=True)
class Mention:
    """A finding that is named.

    Attributes:
        label: its class, one of :data:`meddiff.common.findings.FINDINGS`.
        start, stop: its characters in the impression.
        denied: the picture does not have it.
        side: "left", "right" or "bilateral"; "" where it has none or is denied.
        severity: "mild", "moderate" or "severe"; "" where it is denied.
    """

    label: str
    start: int
    stop: int
    denied: bool
    side: str
    severity: str


def mentions(
    impression: str, findings: Mapping[str, Mapping[str, object]], domain: str = "chest"
) -> tuple[Mention, ...]:
    """The findings that ``impression`` names, in the order of the text.

    Args:
        findings: label -> side and severity, as ``attributes["findings"]`` of a phantom has them; other classes are absent.
        domain: "chest", or "source" for shapes.

    Example:
        >>> [(m.label, m.denied, m.side) for m in mentions("No edema. Small left effusion.", {
        ...     "Pleural Effusion": {"side": "left", "severity": "mild"}})]
        [('Edema', True, ''), ('Pleural Effusion', False, 'left')]
    """
    found = []
    for label, pattern in _PATTERNS[domain]:
        facts = findings.get(label)
        for match in pattern.finditer(impression):
            side, severity = (str(facts.get(name, "")) for name in ("side", "severity")) if facts else ("", "")
            found.append(Mention(label, match.start(), match.end(), facts is None, side, severity))
    return tuple(sorted(found, key=lambda one: one.start))
