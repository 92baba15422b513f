"""Names of one layout for those of another, module by module. Source: own."""

from collections.abc import Callable, Mapping

from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.weights.reading import State

#: Name of a module in one layout -> its name in another.
Modules = dict[str, str]


def rename(name: str, modules: Mapping[str, str]) -> str:
    """A tensor's name with the longest beginning that is a module of ``modules`` changed; other names stay.

    Example:
        >>> rename("out.0.weight", {"out": "x", "out.0": "conv_norm_out"})
        'conv_norm_out.weight'
    """
    pieces = name.split(".")
    for cut in range(len(pieces), 0, -1):
        found = modules.get(".".join(pieces[:cut]))
        if found is not None:
            return ".".join([found, *pieces[cut:]])
    return name


def renamed(state: Mapping[str, Tensor], modules: Mapping[str, str]) -> State:
    """``state`` under other names; no tensor is copied."""
    return {rename(name, modules): value for name, value in state.items()}


def backwards(modules: Mapping[str, str]) -> Modules:
    """The other direction."""
    return {new: old for old, new in modules.items()}


def below(modules: Mapping[str, str], old: str, new: str) -> Modules:
    """The modules inside one: ``old.A`` -> ``new.B`` for each A -> B."""
    return {f"{old}.{one}": f"{new}.{other}" for one, other in modules.items()}


class Shapes:
    """Shapes by name, for telling an architecture; what is not there is an error that names it.

    Args:
        state: tensors, on "meta" or not.
        where: part and file, what the sentence begins with.
    """

    def __init__(self, state: Mapping[str, Tensor], where: str) -> None:
        self.shapes = {name: tuple(value.shape) for name, value in state.items()}
        self.where = where

    def of(self, name: str, dimensions: int | None = None) -> tuple[int, ...]:
        """The shape of one tensor.

        Raises:
            UserError: it is missing, or has another number of dimensions.
        """
        shape = self.shapes.get(name)
        if shape is None:
            raise UserError(
                f"{self.where} is not whole: {name} is missing, so what network it is cannot be told: fetch it again."
            )
        if dimensions is not None and len(shape) != dimensions:
            raise UserError(
                f"{self.where}: {name} has the shape {shape} where {dimensions} dimensions are wanted; this is another "
                f"network: give a Stable Diffusion 1 or 2 file."
            )
        return shape

    def has(self, beginning: str) -> bool:
        """Whether some name begins so."""
        return any(name.startswith(beginning) for name in self.shapes)

    def count(self, name: Callable[[int], str]) -> int:
        """How many of ``name(0)``, ``name(1)``, ... begin a name, in a row."""
        number = 0
        while self.has(name(number)):
            number += 1
        return number
