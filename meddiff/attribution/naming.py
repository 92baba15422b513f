"""Does a text name a class? Pure functions on text. Source: spec/tradeoff.md section 1.5; "standard" own."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from meddiff.models.text.clip_tokenizer import clean_text


def names_class(
    text: str, label: str, queries: Sequence[str] = (), preset: Literal["standard", "paper"] = "standard"
) -> bool:
    """Whether ``text`` names a class; Table 7 evaluates on the impressions that do, whatever a model was trained on.

    Denials count: which classes an image has is known from its labels.

    Args:
        queries: words that ask for the class, beside ``label`` itself, e.g. ``QUERY_WORDS["Edema"]``.
        preset: "standard" looks for whole words, in singular or plural, in any case, in the text with its encoding repaired
            (:func:`meddiff.models.text.clip_tokenizer.clean_text`), whichever tower reads it: all models are asked for the
            same samples; "paper" for ``label`` anywhere in the text (section 1.5), so that "opacities" names no "Lung
            Opacity" and "carpet" a "Car".

    Example:
        >>> names_class("Patchy opacities at both bases.", "Lung Opacity", ("opacity",))
        True
        >>> names_class("Patchy opacities at both bases.", "Lung Opacity", ("opacity",), "paper")
        False
    """
    if preset == "paper":
        return label.lower() in text.lower()
    return bool(_pattern((label, *queries)).search(" ".join(clean_text(text).split())))


@lru_cache(maxsize=1024)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Any of ``names`` or its plural as whole words; the words of a name may be joined by blanks or a hyphen."""
    forms = {form for name in names for form in (name.lower(), *_plurals(name.lower()))}
    spelled = "|".join(r"[\s-]+".join(map(re.escape, form.split())) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"(?<![^\W_])(?:{spelled})(?![^\W_])", re.IGNORECASE)


def _plurals(name: str) -> tuple[str, ...]:
    """English and Latin plurals of the last word; one that does not exist does no harm, as no text has it."""
    if name.endswith("thorax"):
        return (f"{name[:-1]}ces", f"{name}es")
    if re.search(r"[^aeiou]y$", name):
        return (f"{name[:-1]}ies",)
    if name.endswith("is"):
        return (f"{name[:-2]}es",)
    return (f"{name}es" if re.search("(s|x|ch|sh)$", name) else f"{name}s",)
