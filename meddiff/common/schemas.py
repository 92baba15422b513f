"""Values from a file against the type that they should have. Source: own."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError


def problem_of(kind: type, value: object) -> str | None:
    """Where and why ``value`` is not of ``kind``, the first place of several; None where it is.

    Args:
        kind: a ``TypedDict`` of typing_extensions (pydantic takes no other on Python 3.11), or any type.

    Example:
        >>> problem_of(dict[str, int], {"a": 1}), problem_of(dict[str, int], {"a": "b"})
        (None, 'a: Input should be a valid integer')
    """
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        return first_problem(error)
    return None


def first_problem(error: "ValidationError") -> str:
    """The place and reason of the first of pydantic's complaints, on one line; never the value itself."""
    one = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, one["loc"]))
    return f"{where}: {one['msg']}" if where else str(one["msg"])


@cache
def _adapter(kind: type) -> "TypeAdapter[object]":
    """Made at first use: pydantic is a quarter of a second."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
