"""The vocabulary of MS-COCO: its 80 classes, and which of them a caption names. Pure functions on text.

A caption asks for a class by its name, singular or plural, or by another spelling of that name ("doughnut", "hotdog").
Words for something narrower ("man", "poodle") do not count: a class's mask shows all of its instances, not those. What a
word means is not looked at: "orange" is a fruit also where it is a colour.
Source: class names of MS-COCO 2017; `paper` as the published code does it, spec/tradeoff.md section 1.7; `standard` own.
"""

import re
from functools import lru_cache
from typing import Literal

from meddiff.common.errors import UserError

#: How words are looked for: as whole words, or literally as the published code does.
Preset = Literal["standard", "paper"]
COCO_CLASSES = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
    tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
    tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
    hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
    keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
    hair drier, toothbrush""".replace("\n    ", " ").split(", ")
)

#: class -> its name written otherwise; each gets a plural too.
_SPELLINGS = {
    "airplane": ("aeroplane",),
    "backpack": ("back pack",),
    "cell phone": ("cellphone",),
    "donut": ("doughnut",),
    "hair drier": ("hair dryer", "hairdrier", "hairdryer"),
    "handbag": ("hand bag",),
    "hot dog": ("hotdog",),
    "skateboard": ("skate board",),
    "snowboard": ("snow board",),
    "suitcase": ("suit case",),
    "surfboard": ("surf board",),
    "tennis racket": ("tennis racquet",),
    "toothbrush": ("tooth brush",),
    "tv": ("television",),
}
#: class -> all its plurals, where adding "s" or "es" gives a wrong or not the only one.
_PLURALS = {
    "broccoli": (),
    "bus": ("buses", "busses"),
    "knife": ("knives",),
    "mouse": ("mice",),
    "person": ("persons", "people"),
    "scissors": (),
    "sheep": (),
    "skis": (),
}


def class_words(label: str) -> tuple[str, ...]:
    """What asks for a class: its name, its plurals, its other spellings and theirs; lower case.

    Raises:
        UserError: no class of MS-COCO.

    Example:
        >>> class_words("hot dog")
        ('hot dog', 'hot dogs', 'hotdog', 'hotdogs')
        >>> class_words("knife")
        ('knife', 'knives')
    """
    if label not in COCO_CLASSES:
        raise UserError(f"{label!r} is no class of MS-COCO: take one of {', '.join(COCO_CLASSES)}.")
    words: list[str] = []
    for name in (label, *_SPELLINGS.get(label, ())):
        words += [name, *_PLURALS.get(name, (name + ("es" if re.search("(s|x|ch|sh)$", name) else "s"),))]
    return tuple(words)


@lru_cache(maxsize=1)
def _pattern() -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern for every form of every class, longest first, and form -> class."""
    forms = {form: label for label in COCO_CLASSES for form in class_words(label)}
    longest = sorted(forms, key=len, reverse=True)
    # The words of a form may be joined by blanks or a hyphen; not by a comma: "it is hot, dogs lie about".
    spelled = "|".join(form.replace(" ", r"[\s-]+") for form in longest)
    return re.compile(rf"(?<![^\W_])(?:{spelled})(?![^\W_])", re.IGNORECASE), forms


def mentions(caption: str) -> list[tuple[str, int, int]]:
    """(class, first character, end) of all that ``caption`` names; a hot dog is no dog, a teddy bear no bear."""
    pattern, forms = _pattern()
    return [
        (forms[re.sub(r"[\s-]+", " ", match.group()).lower()], match.start(), match.end())
        for match in pattern.finditer(caption)
    ]


def classes_in(caption: str, preset: Preset = "standard") -> tuple[str, ...]:
    """The classes a caption names, in the order of :data:`COCO_CLASSES`.

    Args:
        preset: "standard" looks for whole words (:func:`class_words`); "paper" for the bare name anywhere in the
            lower-case caption, so that "carrot" names a car, "tied" a tie and "located" a cat, and "people" nobody.

    Example:
        >>> classes_in("Two people share a carrot and a hot dog.")
        ('person', 'carrot', 'hot dog')
        >>> classes_in("Two people share a carrot and a hot dog.", "paper")
        ('car', 'dog', 'carrot', 'hot dog')
    """
    if preset == "paper":
        return tuple(label for label in COCO_CLASSES if label in caption.lower())
    named = {label for label, _, _ in mentions(caption)}
    return tuple(label for label in COCO_CLASSES if label in named)
