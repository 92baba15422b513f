"""What the words and headings of a radiology report say: findings asserted and denied, their side, zone and severity.

Pure functions on text, made for the impressions and MeSH headings of Open-I (:mod:`meddiff.phantoms.openi`). Source: own.
"""

import re

from meddiff.phantoms.findings import SEVERITIES, ZONE_WEIGHTS, Hint

#: label -> (heading that confirms it, words that assert it).
_READING = {
    "Atelectasis": (r"^Pulmonary Atelectasis", r"atelecta(?:sis|ses|tic)"),
    "Cardiomegaly": (
        r"^(Cardiomegaly|Cardiac Shadow/enlarged)",
        r"cardiomegaly|(?:enlarge\w*|increased) (?:\w+ ){0,3}(?:heart|cardiac|cardiomediastinal)"
        r"|(?:heart|cardiac|cardiomediastinal)(?: \w+){0,4} enlarge",
    ),
    "Consolidation": (r"^Consolidation", r"consolidat"),
    "Edema": (r"^Pulmonary Edema", r"edema"),
    "Lung Opacity": (
        r"^(Opacity|Airspace Disease|Infiltrate)(/lung|$|/[^/]*$)",
        r"opacit|opacif|airspace disease|infiltrat",
    ),
    "Pleural Effusion": (r"^Pleural Effusion", r"(?<!pericardial )effusion|pleural fluid"),
    "Pneumonia": (r"^Pneumonia(/|$)", r"pneumonia|pneumonic"),
    "Pneumothorax": (r"^Pneumothorax", r"pneumothora"),
}
#: label -> the heading that confirms it.
CONFIRM = {label: re.compile(heading) for label, (heading, _) in _READING.items()}
_ASSERT = {label: re.compile(words, re.I) for label, (_, words) in _READING.items()}
_DENIAL = re.compile(
    # "no significant change in the effusion" asserts it
    r"\b(no(?! (?:\w+ ){0,2}(?:change|increase|decrease|improvement)\b)|not|without|negative for|absence of|free of|"
    r"clear of|resolved|resolution of|rule out|exclude|deny|denies|rather than|unlikely|removal of|cleared|"
    r"clearing of)\b",
    re.I,
)
#: A denial reaches to the end of its clause.
_CLAUSE_END = re.compile(r"[,;:]? (?:but|however|although|with|which|and there|there is|there are)\b|[;:]", re.I)
#: Statements about other times or places than this chest, and doubts that make a label a guess.
_DOUBT = re.compile(
    r"\b(versus|vs|or|question\w*|cannot|could|history|prior to|previous\w*|concern\w*|evaluat\w*)\b", re.I
)
#: Abnormalities the phantom has no rendering for: a "normal" phantom must not speak of them.
OTHER = re.compile(
    r"nodul|mass|fracture|granuloma|hernia|emphysema|copd|fibros|scar|tuberc|catheter|tube|pacemaker|picc|\bline\b|"
    r"aneurysm|deformit|scolio|postoperativ|surg|lucen|device|stent|valve|hyperinflat|hyperexpan|congest|thicken",
    re.I,
)
_SEVERITY = {"mild": "mild", "small": "mild", "borderline": "mild", "moderate": "moderate", "severe": "severe",
             "large": "severe", "diffuse": "severe"}  # fmt: skip
#: The same for words, read in the clause that names the finding.
_SPOKEN_SEVERITY = {
    "mild": re.compile(r"\b(mild\w*|minimal\w*|small|slight\w*|subtle|tiny|trace|borderline|minor|faint)\b", re.I),
    "moderate": re.compile(r"\bmoderate\w*\b", re.I),
    "severe": re.compile(r"\b(severe\w*|large|marked\w*|massive\w*|extensive|diffuse)\b", re.I),
}
_SPOKEN_ZONES = {
    "lower": re.compile(r"basilar|bibasil|\bbases?\b|lower (?:lobe|lung|zone)", re.I),
    "middle": re.compile(r"middle lobe|mid[ -]?lung|mid zone|lingula|perihilar", re.I),
    "upper": re.compile(r"upper (?:lobe|lung|zone)|apex|apical|apices", re.I),
}
_ZONES = {"base": "lower", "lower lobe": "lower", "costophrenic angle": "lower", "upper lobe": "upper", "apex": "upper",
          "middle lobe": "middle", "lingula": "middle", "hilum": "middle"}  # fmt: skip


def clean(text: str) -> list[str]:
    """Sentences of an impression without numbering and XXXX; those that were mostly XXXX are dropped."""
    text = re.sub(r"\bx-XXXX", "x-ray", text, flags=re.I)
    text = re.sub(r"(?<!\w)\d+\s*[.)]\s+(?=[A-Zx])", "", text)
    kept = []
    for raw in re.split(r"(?<=[.!?])\s+|\n+", text):
        hidden = len(re.findall(r"XXXX", raw))
        sentence = re.sub(r"\s+", " ", re.sub(r"\S*XXXX\S*", "", raw)).strip(" .,;:!?-")
        sentence = re.sub(r"\s+([,;:.])", r"\1", sentence)
        if len(re.findall(r"[A-Za-z]{2,}", sentence)) < 2 or hidden > 1:
            continue
        kept.append(sentence[0].upper() + sentence[1:] + ".")
    return kept


def denied_spans(sentence: str) -> list[tuple[int, int]]:
    """Characters (start, stop) of what a sentence denies: from each denial to the end of its clause.

    Example:
        >>> [("No effusion but edema is seen.")[start:stop] for start, stop in denied_spans("No effusion but edema is seen.")]
        ['No effusion']
    """
    spans = []
    for match in _DENIAL.finditer(sentence):
        end = _CLAUSE_END.search(sentence, match.end())
        spans.append((match.start(), end.start() if end else len(sentence)))
    return spans


def read_sentences(sentences: list[str]) -> tuple[dict[str, list[str]], set[str], bool]:
    """What sentences assert (label -> sentences), what they deny, and whether any finding is left in doubt."""
    asserted: dict[str, list[str]] = {}
    denied: set[str] = set()
    doubtful = False
    for sentence in sentences:
        spans = denied_spans(sentence)
        for label, words in _ASSERT.items():
            for match in words.finditer(sentence):
                inside = _DENIAL.search(match.group(0))  # "the heart is not enlarged"
                if inside or any(start <= match.start() < stop for start, stop in spans):
                    denied.add(label)
                    continue
                if sentence not in asserted.setdefault(label, []):
                    asserted[label].append(sentence)
                doubtful = doubtful or bool(_DOUBT.search(sentence))
    return asserted, denied, doubtful


def _sides(text: str) -> set[str]:
    found = set(re.findall(r"\b(right|left)\b", text.lower()))
    if re.search(r"\b(bilateral\w*|both|bibasil\w*|bi-basil\w*)\b", text, re.I):
        found = {"right", "left"}
    if re.search(r"\blingula", text, re.I):
        found.add("left")
    if re.search(r"\bmiddle lobe", text, re.I):
        found.add("right")
    return found


def _clauses(label: str, sentence: str) -> str:
    """The parts of a sentence, between commas, "and" and "with", that name ``label`` and so speak of nothing else."""
    parts = re.split(r"[,;/]| with |(?<!\bright)(?<!\bleft) and ", sentence)
    return ", ".join(part for part in parts if _ASSERT[label].search(part)) or sentence


def phrase_of(label: str, sentences: list[str], side: str) -> str | None:
    """The first sentence whose side words for ``label`` are not just a part of the truth; None when there is none."""
    truth = {"right", "left"} if side == "bilateral" else {side} - {""}
    for sentence in sentences:
        alone = sum(bool(words.search(sentence)) for words in _ASSERT.values()) == 1
        said = _sides(sentence if alone else _clauses(label, sentence))
        if label == "Cardiomegaly" or not said or said == truth:
            return sentence
    return None


def hint_of(label: str, headings: list[str], sentences: list[str]) -> Hint | None:
    """Side, zone and severity of a finding; None where words and headings contradict each other or name two zones."""
    parts = [part.strip() for heading in headings for part in heading.split("/")[1:]]
    sides = {part for part in parts if part in ("right", "left")}
    if "bilateral" in parts:
        sides = {"right", "left"}
    if "lingula" in parts:
        sides.add("left")
    spoken = set().union(*(_sides(sentence) for sentence in sentences))
    if label != "Cardiomegaly" and spoken:
        if sides and not sides <= spoken:
            return None
        if not sides and len(spoken) == 2:
            return None
        sides = sides or spoken
    side = "" if label == "Cardiomegaly" or not sides else "bilateral" if len(sides) == 2 else next(iter(sides))
    zones = {_ZONES[part] for part in parts if part in _ZONES}
    said = {zone for zone, words in _SPOKEN_ZONES.items() if any(words.search(sentence) for sentence in sentences)}
    zones = zones or said
    # a finding has one zone in the picture, so two in the words ("left apical and right basilar") cannot be drawn
    if label in ZONE_WEIGHTS and said and not (zones <= said and len(zones) == 1):
        return None
    severities = {_SEVERITY[part] for part in parts if part in _SEVERITY}
    clauses = [_clauses(label, sentence) for sentence in sentences]
    degrees = {one for one, words in _SPOKEN_SEVERITY.items() if any(words.search(clause) for clause in clauses)}
    if degrees:
        severities = severities & degrees or degrees
    return Hint(
        side,
        next(iter(zones)) if len(zones) == 1 and label in (*ZONE_WEIGHTS, "Pneumothorax") else "",
        # "mild to moderate", or a large effusion on one side and a small one on the other: the worst of them
        max(severities, key=SEVERITIES.index, default=""),
    )


def swap_sides(text: str) -> str:
    """The same words for the mirrored chest: right and left exchanged, the lingula for the right middle lobe."""
    table = {"right": "left", "left": "right", "right middle lobe": "lingula", "middle lobe": "lingula",
             "lingula": "right middle lobe", "lingular": "right middle lobe"}  # fmt: skip

    def swap(match: re.Match[str]) -> str:
        word = match.group(0)
        other = table[word.lower()]
        return other.capitalize() if word[0].isupper() else other

    return re.sub(r"\b(right middle lobe|middle lobe|right|left|lingular|lingula)\b", swap, text, flags=re.I)
