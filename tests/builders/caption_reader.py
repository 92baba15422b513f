"""An independent reading of captions: what a sentence asserts, denies, and says of side, zone and severity.

Written from English and anatomy alone: nothing of the grammar, its lexicon or the report reader is imported, so that
a caption, its labels and its masks are compared by somebody who knows only the caption. Source: own.
"""

import re
from dataclasses import dataclass, field

#: What each finding is called. An infiltrate is an opacity, a pneumonic one a pneumonia.
NAMES = {
    "Atelectasis": r"atelecta\w*",
    "Cardiomegaly": r"cardiomegaly|cardiac enlargement|enlarge\w* (?:of )?(?:the )?(?:heart|cardiac\b)"
    r"|(?:heart|cardiac|cardiomediastinal)(?: size| silhouette)?(?: (?:is|appears))?(?: \w+ly| not)? enlarged",
    "Consolidation": r"consolidation\w*",
    "Edema": r"(?:vascular congestion with )?edema",
    "Lung Opacity": r"opacit\w+|opacification\w*|air ?space (?:disease|process)|(?<!pneumonic )infiltrat\w*",
    "Pleural Effusion": r"(?<!pericardial )effusions?|pleural fluid",
    "Pneumonia": r"\w*pneumonia\w*|pneumonic(?: infiltrates?)?",
    "Pneumothorax": r"\w*pneumothora\w+",
}
#: Sentences that deny a finding without its name.
IMPLIED = {
    "Cardiomegaly": r"heart size (?:is )?normal|normal (?:heart|cardiac)|(?:heart|cardiac) size is within normal",
    "Pleural Effusion": r"costophrenic angles are sharp|pleural spaces are free",
    "Edema": r"pulmonary vascularity is normal",
    "Pneumothorax": r"lungs are well (?:aerated|expanded)",
}
#: What the shapes of the source domain are called, in the place of the findings.
SHAPES = {
    "Atelectasis": r"bars?\b|stripes?",
    "Cardiomegaly": r"(?:swelling|enlargement) of the disc|disc is(?: \w+ly| not) enlarged|enlarged disc",
    "Consolidation": r"squares?|blocks?",
    "Edema": r"fog|mist",
    "Lung Opacity": r"balls?|spots?",
    "Pleural Effusion": r"wedges?|triangles?",
    "Pneumonia": r"mosaics?|chequerboards?",
    "Pneumothorax": r"crescents?|sickles?",
}
#: "No change in an effusion" does not deny it.
NOT_OF_A_FINDING = r"(?! (?:\w+ ){0,2}(?:change|changed|increase|decrease|improvement|difference)\b)"
NEGATION = re.compile(
    rf"\b(?:(?:no|without|not){NOT_OF_A_FINDING}|negative for|absence of|free of|clear of|resolved|resolution of|"
    r"rule out|exclude|rather than|removal of|clearing of)\b",
    re.I,
)
NEGATED_AFTER = re.compile(
    r"^[^,;]*?\b(?:(?:is|are|was|were) not (?:seen|present|identified|appreciated|visualized|demonstrated)"
    r"|(?:has|have) (?:resolved|cleared)|no longer)\b(?! previously)",
    re.I,
)
ENDS_NEGATION = re.compile(r"[;:]| (?:but|however|although|which|there (?:is|are)|with)\b", re.I)
#: Where one noun phrase ends and the next begins.
JOINT = re.compile(r", also |,|;|/| as well as | with | and | or | plus ", re.I)
SEVERITIES = {
    "mild": r"mild|mildly|minimal|minimally|small|tiny|trace|subtle|slight|slightly|faint|borderline|minor",
    "moderate": r"moderate|moderately",
    "severe": r"severe|severely|large|sizeable|marked|markedly|massive|massively|extensive|pronounced",
}
#: Degrees of change, not of the finding.
CHANGE = re.compile(r"\b\w+ly (?:increas|decreas|improv|wors)\w+|\b(?:increas|decreas|improv)\w+", re.I)
BOTH = r"bilateral\w*|both|bibasilar|bibasal|biapical"
ZONES = {
    "upper": r"upper|apical|apex|apices|biapical",
    "middle": r"mid|middle|midlung|lingula|lingular|perihilar",
    "lower": r"lower|base|bases|basilar|basal|bibasilar|bibasal",
}
PLACE = re.compile(
    rf"\b(?:(?P<both>{BOTH}|bases|apices)|(?P<side>right|left)|(?P<zone>{'|'.join(ZONES.values())}))\b(?!-to-)", re.I
)
#: Sides of things that are no finding.
ELSEWHERE = re.compile(
    r"\b(?:right|left)(?:[ -]sided)? (?:hemi)?(?:diaphragm|hilum|atri\w+|rib|pacemaker|chest tube)\w*", re.I
)
SIDES = ("right", "left")


@dataclass
class Said:
    """What a caption says of one finding; empty sets mean that it is silent.

    Attributes:
        sides: "right", "left".
        all_sides: whether every mention names a side, so that ``sides`` is the whole truth.
        places: (side, zone) as said; side "" where only the zone is given.
        severities: "mild", "moderate", "severe".
        shape: "apical" or "lateral", for a pneumothorax.
    """

    sides: set[str] = field(default_factory=set)
    places: set[tuple[str, str]] = field(default_factory=set)
    severities: set[str] = field(default_factory=set)
    shape: set[str] = field(default_factory=set)
    all_sides: bool = True


def sentences(text: str) -> list[str]:
    """Sentences without their numbers and full stops."""
    text = re.sub(r"(?:^|(?<=\. ))\d+\. ", "", text)
    return [part for part in re.split(r"(?<=[A-Za-z)%])\.\s*(?=[A-Z]|$)", text) if part]


def read(text: str, called: dict[str, str] = NAMES) -> tuple[dict[str, Said], set[str]]:
    """(finding -> what is said of it, findings denied) of a caption; ``called`` are the names of the findings."""
    asserted: dict[str, Said] = {}
    denied = {label for label, words in IMPLIED.items() if re.search(words, text, re.I)}
    name_of = re.compile("|".join(f"(?P<{label.replace(' ', '_')}>{words})" for label, words in called.items()), re.I)
    for sentence in sentences(text):
        names = list(name_of.finditer(sentence))
        for k, name in enumerate(names):
            label = (name.lastgroup or "").replace("_", " ")
            if is_denied(sentence, name):
                denied.add(label)
                continue
            before, after = surroundings(sentence, names, k)
            said = asserted.setdefault(label, Said())
            described = CHANGE.sub("", f"{before} {name.group()}")
            said.severities |= {s for s, words in SEVERITIES.items() if re.search(rf"\b(?:{words})\b", described, re.I)}
            said.shape |= set(re.findall(r"\b(apical|lateral)\b", f"{before} {after}".lower()))
            here = places(before) | places(after)
            said.sides |= {side for side, _ in here} - {""}
            said.places |= {(side, zone) for side, zone in here if zone}
            said.all_sides &= any(side for side, _ in here)
    return asserted, denied


def is_denied(sentence: str, name: re.Match[str]) -> bool:
    """Whether the finding named at ``name`` is denied there."""
    if re.search(r"\bnot\b", name.group(), re.I) or NEGATED_AFTER.search(sentence[name.end() :]):
        return True
    for negation in NEGATION.finditer(sentence, 0, name.start()):
        if not ENDS_NEGATION.search(sentence, negation.end(), name.start()):
            return True
    return False


def surroundings(sentence: str, names: list[re.Match[str]], k: int) -> tuple[str, str]:
    """Words before and after the ``k``-th name that describe it and not its neighbours."""
    name = names[k]
    earlier = names[k - 1].end() if k else 0
    joints = list(JOINT.finditer(sentence, earlier, name.start()))
    if not k:  # "the right mid lung and right basilar consolidation": two places of the first finding, no new phrase
        joints = [j for j in joints if j.group() not in (" and ", ",") or not is_place(sentence[: j.start()])]
    start = joints[-1].end() if joints else earlier
    stop = len(sentence)
    if k + 1 < len(names):
        joints = list(JOINT.finditer(sentence, name.end(), names[k + 1].start()))
        stop = joints[-1].start() if joints else name.end()
    return sentence[start : name.start()], sentence[name.end() : stop]


def is_place(text: str) -> bool:
    """Whether ``text`` ends in a place ("... the right mid lung")."""
    words = f"right|left|lung|lungs|lobe|zone|{'|'.join(ZONES.values())}"
    return bool(re.search(rf"\b(?:{words})$", text, re.I))


def places(text: str) -> set[tuple[str, str]]:
    """(side, zone) of the places in ``text``; "" for what is not said."""
    found: set[tuple[str, str]] = set()
    current: tuple[str, ...] = ()
    zoned = False
    for match in PLACE.finditer(ELSEWHERE.sub("", text)):
        word = match.group().lower()
        zone = next((zone for zone, words in ZONES.items() if re.fullmatch(words, word)), "")
        if word.startswith("lingula"):
            current, zoned = ("left",), True
            found.add(("left", "middle"))
            continue
        if match.group("both"):
            current, zoned = SIDES, bool(zone)
        elif match.group("side"):
            # "the right and left bases": both sides wait for the zone
            current = (*current, word) if current and not zoned and len(current) == 1 else (word,)
            zoned = False
        if not zone:
            found |= {(side, "") for side in current}
            continue
        # the middle lobe is part of the right lung
        owner = current or (("right",) if re.match(r"middle lobe", text[match.start() :], re.I) else ("",))
        found |= {(side, zone) for side in owner}
        zoned = True
    return found


def is_consistent(text: str) -> bool:
    """Whether a caption that knows of no earlier picture refrains from comparing with one."""
    unknown = re.search(r"no prior (?:studies|study|exams?|films?)", text, re.I)
    compares = (
        r"\b(?:compared|unchanged|stable|persistent|interval|new|again|previously|the prior|from prior|to prior)\b"
    )
    return not (unknown and re.search(compares, text, re.I))
