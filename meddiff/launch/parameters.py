"""Parameters of a W&B sweep file: their kinds, as `sweeps` 0.3.0 knows them. Source: own.

A parameter is a constant, a list of choices or a distribution; ``parameters`` within it holds further ones. Here they are a
flat mapping from the path of names to :class:`Parameter`, in sorted order, which is the order in which they are searched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

#: One setting of all parameters: name -> value; nested parameters are mappings.
Values = dict[str, object]
#: The path of names to a parameter; longer than one only where ``parameters`` stands in ``parameters``.
Path = tuple[str, ...]

_BOUNDS = ("min", "max")
_BELL = {"mu": 0.0, "sigma": 1.0}
_BETA = {"a": 1.0, "b": 1.0}
_STEP = {"q": 1.0}
#: kind -> (what must be given, what may be given with its default); all but the first five need ``distribution``.
KINDS: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "constant": (("value",), {}),
    "categorical": (("values",), {}),
    "categorical_w_probabilities": (("values", "probabilities"), {}),
    "int_uniform": (_BOUNDS, {}),
    "uniform": (_BOUNDS, {}),
    "q_uniform": (_BOUNDS, _STEP),
    "log_uniform_values": (_BOUNDS, {}),
    "q_log_uniform_values": (_BOUNDS, _STEP),
    "inv_log_uniform_values": (_BOUNDS, {}),
    "normal": ((), _BELL),
    "q_normal": ((), _BELL | _STEP),
    "log_normal": ((), _BELL),
    "q_log_normal": ((), _BELL | _STEP),
    "beta": ((), _BETA),
    "q_beta": ((), _BETA | _STEP),
}
#: Kinds that need no ``distribution``: their keys tell them.
TOLD_BY_KEYS = ("constant", "categorical", "categorical_w_probabilities", "int_uniform", "uniform")
#: What W&B took before: their bounds are exponents.
DEPRECATED = ("log_uniform", "q_log_uniform", "inv_log_uniform")


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        kind: a key of :data:`KINDS`.
        options: its keys with their defaults, without ``distribution``.
    """

    kind: str
    options: Mapping[str, object]

    @property
    def choices(self) -> Sequence[object]:
        """The values of a categorical one."""
        return cast("Sequence[object]", self.options["values"])

    def of(self, name: str) -> float:
        """A number among the options."""
        return cast("float", self.options[name])


def is_number(value: object) -> bool:
    """An int or a float; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def kind_of(config: Mapping[str, object]) -> str | None:
    """The kind of a parameter by its keys and ``distribution``; None where it is none.

    Example:
        >>> kind_of({"min": 1, "max": 3}), kind_of({"min": 1, "max": 3.5}), kind_of({"min": 1})
        ('int_uniform', 'uniform', None)
    """
    keys = set(config) - {"distribution"}
    named = config.get("distribution")
    if named is None:
        fitting = [kind for kind in TOLD_BY_KEYS if keys == set(KINDS[kind][0])]
        if "uniform" in fitting:
            fitting = ["int_uniform" if all(is_int(config[name]) for name in _BOUNDS) else "uniform"]
        return fitting[0] if fitting else None
    if named not in KINDS:
        return None
    required, optional = KINDS[cast("str", named)]
    return cast("str", named) if set(required) <= keys <= set(required) | set(optional) else None


def flat(parameters: Mapping[str, object], above: Path = ()) -> dict[Path, Parameter]:
    """All parameters of a valid file by their paths, sorted.

    Args:
        parameters: the ``parameters`` of the file, or of a parameter in it.
        above: the path of names to it.
    """
    found: dict[Path, Parameter] = {}
    for name in sorted(parameters):
        config = cast("Mapping[str, object]", parameters[name])
        if "parameters" in config:
            found |= flat(cast("Mapping[str, object]", config["parameters"]), (*above, name))
            continue
        kind = kind_of(config)
        assert kind is not None, f"{name} was checked"
        options = {key: value for key, value in config.items() if key != "distribution"}
        found[(*above, name)] = Parameter(kind, {**KINDS[kind][1], **options})
    return dict(sorted(found.items(), key=lambda item: ".".join(item[0])))


def nested(values: Mapping[Path, object]) -> Values:
    """Values by path as the child gets them.

    Example:
        >>> nested({("a",): 1, ("b", "c"): 2})
        {'a': 1, 'b': {'c': 2}}
    """
    result: Values = {}
    for path, value in values.items():
        into = result
        for name in path[:-1]:
            into = cast("Values", into.setdefault(name, {}))
        into[path[-1]] = value
    return result


def same(value: object) -> object:
    """Something hashable that is equal for values that W&B takes for one: 1 and 1.0 are, True and 1 are not.

    Example:
        >>> same(1) == same(1.0), same(True) == same(1), same({"a": [1]}) == same({"a": [1.0]})
        (True, False, True)
    """
    if isinstance(value, Mapping):
        return ("mapping", tuple(sorted((str(name), same(part)) for name, part in value.items())))
    if isinstance(value, list | tuple):
        return ("list", tuple(same(part) for part in value))
    return (type(value).__name__ if not is_number(value) else "number", value)
