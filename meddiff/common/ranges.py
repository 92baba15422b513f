"""Numbers a user gives: finite, and within what their name means. No torch: the quick check asks too. Source: own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass

from meddiff.common.errors import refuse


@dataclass(frozen=True)
class Range:
    """What a number may be: finite and between ``low`` and ``high``.

    Attributes:
        above: ``low`` itself is too little.
        below: ``high`` itself is too much.
        whole: only whole numbers.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def holds(self, value: float) -> bool:
        """Whether ``value`` may be.

        Example:
            >>> NOT_NEGATIVE.holds(0.0), NOT_NEGATIVE.holds(math.nan), POSITIVE.holds(0.0)
            (True, False, False)
        """
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        return _finite(value) and low and high and not (self.whole and value != int(value))

    def __str__(self) -> str:
        """In words.

        Example:
            >>> str(NOT_NEGATIVE), str(DECAY), str(COUNT)
            ('be a finite number of 0 or more', 'lie in [0, 1)', 'be a whole number of 1 or more')
        """
        if math.isfinite(self.low) and math.isfinite(self.high):
            whole = "be a whole number and " if self.whole else ""
            begin, end = "(" if self.above else "[", ")" if self.below else "]"
            return f"{whole}lie in {begin}{_said(self.low)}, {_said(self.high)}{end}"
        kind = "be a whole number" if self.whole else "be a finite number"
        if not math.isfinite(self.low):
            return kind
        return f"{kind} above {self.low:g}" if self.above else f"{kind} of {self.low:g} or more"


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more digits than a float takes
        return False


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 and value == int(value) else f"{value:g}"


FINITE = Range()
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)
DECAY = Range(0, 1, below=True)
COUNT = Range(1, whole=True)
COUNT_OR_NONE = Range(0, whole=True)


def range_problems(values: Mapping[str, object], rules: Mapping[str, Range], owner: str = "") -> list[str]:
    """One sentence for each number of ``values`` that its rule does not allow; what is no number is left to others.

    Args:
        values: name -> value; None and names without a rule pass.
        owner: what the numbers belong to, put before their names.
    """
    return [
        f"{owner}{name} is {value}; it must {rule}."
        for name, rule in rules.items()
        if isinstance(value := values.get(name), int | float) and not isinstance(value, bool) and not rule.holds(value)
    ]


def check_ranges(owner: str, values: object, **rules: Range) -> None:
    """Refuse numbers out of their range.

    Args:
        owner: begins the sentence.
        values: an object with the names of ``rules`` as attributes.

    Raises:
        UserError: one or more are.
    """
    refuse(range_problems({name: getattr(values, name) for name in rules}, rules, f"{owner}: "))


def check_finite_fields(owner: str, options: object) -> None:
    """Refuse numbers among the fields of a dataclass that are NaN or infinite, whatever they mean.

    Raises:
        UserError: there is one.
    """
    if is_dataclass(options):
        check_ranges(
            owner,
            options,
            **{one.name: FINITE for one in fields(options) if isinstance(getattr(options, one.name), float)},
        )


def not_finite(config: object, where: str) -> list[str]:
    """One sentence for each float in a nested config that is NaN or infinite.

    Args:
        where: name of the config, dots go deeper.

    Example:
        >>> not_finite({"dropout": float("nan"), "sizes": [1, 2]}, "unet")
        ['unet.dropout is nan; it must be a finite number.']
    """
    if isinstance(config, Mapping):
        return [one for name, value in config.items() for one in not_finite(value, f"{where}.{name}")]
    if isinstance(config, list | tuple):
        return [one for place, value in enumerate(config) for one in not_finite(value, f"{where}.{place}")]
    if isinstance(config, float) and not math.isfinite(config):
        return [f"{where} is {config}; it must {FINITE}."]
    return []
