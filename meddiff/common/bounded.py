"""JSON and YAML from outside: as deep, as large and as long in their numbers as a document may be, and no more.

A few hundred bytes can nest deeper than Python's stack, name each other until they fill the memory, or hold a number that
no float takes; both formats allow it. Source: own.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from meddiff.common.outside import CONTROLS

#: Levels of lists and mappings; the deepest document of this suite has a dozen.
DEPTH = 100
#: Digits of a whole number: no float takes more than 309, and 64 bits are 19.
DIGITS = 100
#: Values of a YAML document once its aliases are spelled out.
VALUES = 1_000_000
_HALF = re.compile("[\ud800-\udfff]")
_DEEP = f"nests deeper than {DEPTH} levels"


class Unbounded(ValueError):
    """A document that is allowed by its format and by nobody's needs; the text says what of it."""


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise Unbounded(f"holds a number of {len(digits):,} digits, more than {DIGITS}")
    return int(digits)


#: Made once: ``json.loads`` with an option makes one for each text.
_DECODER = json.JSONDecoder(parse_int=_whole)


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 (what JSON can be; a schema says what it is)
    """The value of a JSON text.

    Raises:
        ValueError: no JSON, or (:class:`Unbounded`) nested too deep, with numbers too long, or with half a character.

    Example:
        >>> parse_json('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
        >>> parse_json("[" * 200)
        Traceback (most recent call last):
        ...
        meddiff.common.bounded.Unbounded: nests deeper than 100 levels
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark")
    if text.count("[") + text.count("{") > DEPTH:  # most texts have fewer, and need no second look
        _check_json_depth(text)
    if "\\u" in text or "\\U" in text:
        value = _DECODER.decode(text)
        if _has_half(value):
            raise Unbounded("holds half a character (a lone surrogate)")
        return value
    return _DECODER.decode(text)


_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def _check_json_depth(text: str) -> None:
    depth = 0
    for found in _TEXTS.finditer(text):
        sign = text[found.start()]
        depth += (sign in "[{") - (sign in "]}")
        if depth > DEPTH:
            raise Unbounded(_DEEP)


def _has_half(value: object) -> bool:
    if isinstance(value, str):
        return _HALF.search(value) is not None
    if isinstance(value, Mapping):
        return any(_has_half(key) or _has_half(one) for key, one in value.items())
    return isinstance(value, list) and any(_has_half(one) for one in value)


def check_yaml(text: str) -> yaml.Node | None:
    """The tree of a YAML text, whose aliases may be spelled out.

    Raises:
        yaml.YAMLError: no YAML.
        ValueError: (:class:`Unbounded`) nested too deep, too large once its aliases are spelled out, with numbers too
            long or with half a character.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_FAST):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH:
                raise Unbounded(_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            _check_scalar(event)
    # the same parser's tree has the lines of its keys
    tree: yaml.Node | None = yaml.compose(text, Loader=_FAST)
    if tree is not None:
        _spelled_out(tree, {}, [])
    return tree


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a YAML text, and its tree.

    Raises:
        yaml.YAMLError: no YAML.
        ValueError: as of :func:`check_yaml`, or a value that is none, such as a date in a thirteenth month.
    """
    tree = check_yaml(text)
    try:
        return yaml.load(text, Loader=_FAST), tree
    except (TypeError, OverflowError, AttributeError, LookupError) as error:
        # PyYAML's own constructors fall over what they did not foresee, such as a key that is a list
        raise ValueError(str(error)) from None


_FAST: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _check_scalar(event: yaml.ScalarEvent) -> None:
    if event.style is None and len(event.value) > DIGITS and event.value.lstrip("+-").replace("_", "").isdigit():
        raise Unbounded(f"holds a number of {len(event.value):,} digits, more than {DIGITS}")
    if _HALF.search(event.value):
        raise Unbounded("holds half a character (a lone surrogate)")


def _spelled_out(node: yaml.Node, known: dict[int, tuple[int, int]], above: list[int]) -> tuple[int, int]:
    """(values, levels) of a node once every alias in it is spelled out."""
    if isinstance(node, yaml.ScalarNode):
        return 1, 0
    name = id(node)
    if name in above:
        raise Unbounded("holds an alias that contains itself")
    if name not in known:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [one for pair in node.value for one in pair]
        values, levels = 1, 0
        for part in parts:
            inner = _spelled_out(part, known, [*above, name])
            values, levels = values + inner[0], max(levels, inner[1])
        if values > VALUES:
            raise Unbounded(f"holds more than {VALUES:,} values once its aliases are spelled out")
        if levels + 1 > DEPTH:
            raise Unbounded(_DEEP)
        known[name] = values, levels + 1
    return known[name]


def no_yaml(error: Exception) -> str:
    """What is wrong with a YAML text, and on which line, on one line.

    Example:
        >>> try:
        ...     _ = parse_yaml("model: [1, 2\\ntrainer: }")
        ... except yaml.YAMLError as error:
        ...     print(no_yaml(error))
        is not valid YAML (line 2: did not find expected ',' or ']')
    """
    if not isinstance(error, yaml.YAMLError):
        return one_line(error) if isinstance(error, Unbounded) else f"is not valid YAML ({one_line(error)})"
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f"line {mark.line + 1}: "
    return f"is not valid YAML ({where}{one_line(Exception(getattr(error, 'problem', None) or error))})"


def finite(value: object) -> bool:
    """Whether a value holds no number that is NaN, infinite, or beyond what a float takes.

    Example:
        >>> finite({"a": [1, 2.5]}), finite([float("nan")]), finite(10**400)
        (True, False, False)
    """
    if isinstance(value, Mapping):
        return all(finite(one) for one in value.values())
    if isinstance(value, list | tuple):
        return all(finite(one) for one in value)
    if isinstance(value, int | float):
        try:
            return math.isfinite(float(value))
        except OverflowError:
            return False
    return True


def one_line(error: Exception) -> str:
    """What a parser says, without its line breaks and controls.

    Example:
        >>> one_line(ValueError("no\\n  good"))
        'no good'
    """
    return CONTROLS.sub(" ", " ".join(str(error).split()))
