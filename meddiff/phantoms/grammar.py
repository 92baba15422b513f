"""Impressions in the manner of radiology reports, written for a scene by an own grammar.

Every finding of the scene gets one sentence (now and then two findings share one) that names it with side, place
and severity as rendered; other findings are denied, asides and comparisons are thrown in, and the order is shuffled.
Language variety is the point: with one short phrase per picture a text tower has nothing to unlearn.
Source: own; no text of any report is used.
"""

from dataclasses import dataclass

import numpy as np

from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.phantoms.findings import SEVERITIES, Finding
from meddiff.phantoms.lexicon import ADVERBS, CHEST, Lexicon
from meddiff.phantoms.scene import Scene

#: Rough ceiling of the length, in the estimate of :func:`weight`; keeps impressions below 60 CLIP tokens.
BUDGET = 44


@dataclass(frozen=True)
class Report:
    """An impression and, by label, the sentence of it that names the finding."""

    impression: str
    phrases: tuple[tuple[str, str], ...]
    """(label, sentence) in the order of the text."""


@dataclass(frozen=True)
class _NounPhrase:
    text: str
    article: str
    plural: bool

    def full(self) -> str:
        return f"{self.article} {self.text}" if self.article else self.text


def weight(text: str) -> int:
    """Estimate of the number of CLIP tokens of ``text`` from above: long medical words fall into several pieces."""
    return (
        sum(1 + (len(word) > 8) + (len(word) > 11) for word in text.replace("-", " ").split())
        + text.count(".")
        + (text.count(",") + text.count("-"))
    )


def write(scene: Scene, rng: np.random.Generator, lexicon: Lexicon = CHEST) -> Report:
    """Write an impression for ``scene``; ``rng`` decides on words and order, the scene on everything said."""
    pick = _Picker(rng)
    named = _name_findings(scene.findings, pick, lexicon)
    used = sum(weight(sentence) for sentence, _ in named)
    sentences = list(named)
    if not scene.findings:
        opening = pick(lexicon.normal)
        sentences.append((opening, (NO_FINDING,)))
        used += weight(opening)
    for extra in _extras(scene, pick, lexicon):
        said = " ".join(text for text, _ in sentences)
        if used + weight(extra) <= BUDGET and extra not in said and not _contradict(extra, said):
            sentences.append((extra, ()))
            used += weight(extra)
    # impressions usually lead with what matters, but not always
    order = rng.permutation(len(sentences)) if rng.uniform() < 0.65 else np.arange(len(sentences))
    sentences = [(_capital(sentences[k][0]) + ".", sentences[k][1]) for k in order]
    numbered = len(sentences) > 1 and used + 2 * len(sentences) <= BUDGET and rng.uniform() < 0.2
    parts = [f"{k}. {text}" if numbered else text for k, (text, _) in enumerate(sentences, 1)]
    phrases = tuple((label, text) for text, labels in sentences for label in labels if label != NO_FINDING)
    return Report(" ".join(parts), phrases)


class _Picker:
    """Uniform choice with one generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.uniform() < probability)


def _name_findings(findings: tuple[Finding, ...], pick: _Picker, lexicon: Lexicon) -> list[tuple[str, tuple[str, ...]]]:
    """Sentences (without full stop) and the labels each names."""
    rest = [findings[k] for k in pick.rng.permutation(len(findings))]
    sentences: list[tuple[str, tuple[str, ...]]] = []
    while rest:
        finding = rest.pop()
        if rest and pick.chance(0.22):
            other = rest.pop()
            first, second = _noun_phrase(finding, pick, lexicon), _noun_phrase(other, pick, lexicon)
            joint = pick((" with ", " and ", " as well as ", ", also "))
            text = _frame_two(first, second, joint, pick)
            sentences.append((text, (finding.label, other.label)))
            continue
        if finding.label == "Cardiomegaly" and pick.chance(0.55):
            adverb = pick(ADVERBS[SEVERITIES.index(finding.severity)])
            text = pick(lexicon.enlarged).format(adverb=adverb, Adverb=_capital(adverb))
        else:
            text = _frame(_noun_phrase(finding, pick, lexicon), pick)
        sentences.append((text, (finding.label,)))
    return sentences


_CHANGES = ("new", "persistent", "unchanged", "stable", "increased", "decreased", "redemonstrated")
#: Words that speak of an earlier picture: "No prior studies are available" would contradict them.
_COMPARED = (*_CHANGES, "prior", "interval", "again", "previously", "improved", "Stable", "Compared")
_TRAILERS = (
    "unchanged",
    "similar to prior",
    "slightly increased from the prior study",
    "new since the prior study",
    "improved from prior",
    "stable in appearance",
    "not seen previously",
)


def _contradict(one: str, other: str) -> bool:
    """Whether one text says that there is no earlier picture and the other compares with it."""
    return any("No prior" in a and any(word in b for word in _COMPARED) for a, b in ((one, other), (other, one)))


def _frame(phrase: _NounPhrase, pick: _Picker) -> str:
    """A sentence around one noun phrase."""
    verb = "are" if phrase.plural else "is"
    plain = (
        phrase.full(),
        phrase.text,
        phrase.text,
        f"there {verb} {phrase.full()}",
        f"{phrase.full()} {verb} {pick(('seen', 'present', 'noted', 'identified', 'again seen', 'demonstrated'))}",
        f"findings {pick(('consistent with', 'compatible with', 'in keeping with'))} {phrase.full()}",
        f"{pick(_CHANGES)} {phrase.text}",
        f"interval {pick(('development', 'appearance', 'increase', 'improvement'))} of {phrase.full()}",
        f"compared to the prior study, {phrase.full()} {verb} {pick(('new', 'unchanged', 'larger', 'smaller'))}",
    )
    text = pick(plain)
    if text in (phrase.full(), phrase.text) and pick.chance(0.3):
        text = f"{text}, {pick(_TRAILERS)}"
    return text


def _frame_two(first: _NounPhrase, second: _NounPhrase, joint: str, pick: _Picker) -> str:
    both = f"{first.full()}{joint}{second.full()}"
    return pick((both, both, f"there {'are' if first.plural else 'is'} {both}", f"findings consistent with {both}"))


def _noun_phrase(finding: Finding, pick: _Picker, lexicon: Lexicon) -> _NounPhrase:
    """The finding with size, descriptor, side and place."""
    noun = lexicon.nouns[finding.label][int(pick.rng.integers(len(lexicon.nouns[finding.label])))]
    size = pick(lexicon.sizes[finding.label][SEVERITIES.index(finding.severity)])
    plural = bool(noun.many) and finding.side == "bilateral"
    before, after = _place(finding, pick, lexicon)
    words = [size, pick(noun.descriptors), before, noun.many if plural else noun.one, after]
    # radiologists put the side first now and then: "right basilar moderate consolidation"
    if before and pick.chance(0.15):
        words[0], words[2] = words[2], words[0]
    text = " ".join(word for word in words if word)
    article = ""
    if noun.article and not plural:
        article = "an" if text[0] in "aeiou" else "a"
    return _NounPhrase(text, article, plural)


def _place(finding: Finding, pick: _Picker, lexicon: Lexicon) -> tuple[str, str]:
    """Words for the place: (before the noun, after the noun), one of them empty."""
    side, zone, label = finding.side, finding.zone, finding.label
    if not side:
        return "", ""
    if label == "Pneumothorax":
        where = finding.place if lexicon.lobes else {"apical": "upper", "lateral": "lateral"}[finding.place]
        if pick.chance(0.6):
            return f"{side} {where}", ""
        return (side, "") if pick.chance(0.5) else ("", f"on the {side}")
    if label in ("Pleural Effusion", "Edema"):
        if side == "bilateral":
            more = _heavier(finding)
            if more and pick.chance(0.6):
                both, worse = pick(("on both sides", "bilaterally")), pick(("greater", "worse", "more"))
                return "", f"{both}, {worse} on the {more}"
            return ("bilateral", "") if pick.chance(0.7) else ("", pick(("on both sides", "bilaterally")))
        return (pick((side, f"{side}-sided")), "") if pick.chance(0.65) else ("", f"on the {side}")
    if side == "bilateral" and not zone:
        spots = [_region(site.side, site.zone, pick, lexicon) for site in finding.sites]
        if pick.chance(0.5):
            return "bilateral", ""
        return "", f"in {spots[0]} and {spots[1]}"
    if side == "bilateral":
        both = {"upper": "upper", "middle": "mid", "lower": "lower"}[zone]
        choices = [f"in both {both} {'lungs' if lexicon.lobes else 'zones'}", f"in both {both} zones"]
        if zone == "lower":
            choices.append("at both bases")
        if pick.chance(0.4):
            return ("bibasilar" if zone == "lower" and lexicon.lobes else f"bilateral {both} zone"), ""
        return "", pick(tuple(choices))
    if pick.chance(0.5):
        return _adjective(side, zone, pick, lexicon), ""
    if zone == "lower" and pick.chance(0.4):
        return "", f"at the {side} {'lung base' if lexicon.lobes else 'base'}"
    return "", f"in {_region(side, zone, pick, lexicon)}"


def _region(side: str, zone: str, pick: _Picker, lexicon: Lexicon) -> str:
    """A place as a noun: "the right upper lobe"."""
    short = "mid" if zone == "middle" else zone
    choices = [f"the {side} {short} zone"]
    if lexicon.lobes:
        choices += [f"the {side} {short} lung", f"the {side} {short} lung zone"]
        choices += {
            ("left", "middle"): ["the lingula"],
        }.get((side, zone), [f"the {side} {zone} lobe"] * 2)
    return pick(tuple(choices))


def _adjective(side: str, zone: str, pick: _Picker, lexicon: Lexicon) -> str:
    """A place as an adjective: "right upper lobe", "left basilar"."""
    short = "mid" if zone == "middle" else zone
    choices = [f"{side} {short} zone"]
    if lexicon.lobes:
        choices.append(f"{side} {short} lung")
        choices += ["lingular"] if (side, zone) == ("left", "middle") else [f"{side} {zone} lobe"] * 2
        choices += [f"{side} basilar"] if zone == "lower" else []
    return pick(tuple(choices))


def _heavier(finding: Finding) -> str:
    """The side that is clearly worse in a bilateral effusion or edema, "" where they are alike."""
    amount = {site.side: site.height * site.strength for site in finding.sites}
    more, less = max(amount, key=amount.__getitem__), min(amount, key=amount.__getitem__)
    return more if amount[more] > 1.25 * amount[less] else ""


_DENIALS = ("no {}", "no {}", "there is no {}", "no {} is seen", "without {}", "negative for {}", "no {} identified")


def _extras(scene: Scene, pick: _Picker, lexicon: Lexicon) -> list[str]:
    """Denials, normal parts and asides that are true of the scene, in random order."""
    labels = set(scene.labels)
    free = [label for label in FINDINGS if not labels & set(lexicon.related[label])]
    extras = []
    deniable = [free[k] for k in pick.rng.permutation(len(free))]
    count = int(pick.rng.choice(5, p=(0.15, 0.3, 0.3, 0.17, 0.08)))
    denied = deniable[:count]
    while denied:
        group = [denied.pop() for _ in range(min(len(denied), int(pick.rng.integers(1, 4))))]
        things = [pick(lexicon.denials[label]) for label in group]
        listed = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " or " + things[-1]
        extras.append(pick(_DENIALS).format(listed))
    normal = [label for label in lexicon.clear if not labels & set(lexicon.related[label]) and pick.chance(0.25)]
    extras += [pick(lexicon.clear[label]) for label in normal]
    extras += [pick(lexicon.asides) for _ in range(int(pick.rng.choice(3, p=(0.45, 0.4, 0.15))))]
    return [extras[k] for k in pick.rng.permutation(len(extras))]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
