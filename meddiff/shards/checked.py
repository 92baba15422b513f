"""What a ``KEY.json`` and a ``manifest.json`` must be before anything trusts them: kinds, and bounds of numbers.

What is missing is said by whoever needs it: shards of earlier versions and of other writers lack some. Source: own.
"""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, cast

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import TypedDict

from meddiff.common.schemas import first_problem
from meddiff.shards.schema import SampleMetadata

if TYPE_CHECKING:
    from pydantic import TypeAdapter

#: Sides of images and latents, in pixels; the largest X-ray has a tenth of it.
LARGEST_SIDE = 65_536
#: Pixels of a stored picture; ten times those of the largest X-ray, and before Pillow warns of a bomb.
LARGEST_PICTURE = 80_000_000
Side = Annotated[int, Ge(1), Le(LARGEST_SIDE)]
SideOrNone = Annotated[int, Ge(0), Le(LARGEST_SIDE)]
Count = Annotated[int, Ge(0), Le(2**40)]
Finite = Annotated[float, Gt(-1e9), Lt(1e9)]
Factor = Annotated[float, Gt(0), Lt(1e6)]
#: Without these no sample can be trained on.
NEEDED = ("impression", "labels")


class Box(TypedDict):
    label: str
    x: Finite
    y: Finite
    w: Finite
    h: Finite


class Phrase(TypedDict):
    text: str
    label: str
    boxes: list[Box]


class Sample(TypedDict, total=False):
    """:class:`meddiff.shards.schema.SampleMetadata`, with bounds."""

    impression: str
    labels: list[str]
    split: str
    patient_id: str
    view: str
    captions: list[str]
    phrases: list[Phrase]
    boxes: list[Box]
    attributes: dict[str, object]
    source: str
    width: Side
    height: Side
    mask_names: dict[str, str]


class Shard(TypedDict, total=False):
    """:class:`meddiff.shards.manifest.ShardRecord`, with bounds."""

    split: str
    samples: Count
    bytes: Count
    sha256: str
    keys_sha256: str
    labels: dict[str, Count]
    unreadable: dict[str, str]
    boxes: dict[str, Count]
    made: str


Vae = TypedDict(
    "Vae",
    {
        "class": str,
        "sha256": str,
        "source": str,
        "scaling_factor": Factor,
        "latent_channels": SideOrNone,
        "downsample": Side,
    },
    total=False,
)


class Counts(TypedDict, total=False):
    samples: Count
    labels: dict[str, Count]


class Stored(TypedDict, total=False):
    """:class:`meddiff.shards.manifest.Manifest`, with bounds."""

    cohort: str
    command: str
    options: dict[str, object]
    vae: Vae
    latent_shape: tuple[SideOrNone, SideOrNone, SideOrNone]
    resolution: Side
    resize: str
    shards: list[Shard]
    counts: dict[str, Counts]


for _one in (Sample, Box, Phrase):
    # pydantic drops other keys otherwise
    setattr(_one, "__pydantic_config__", {"extra": "allow"})  # noqa: B010  (no attribute of TypedDict's)


def parse_sample(text: bytes) -> SampleMetadata:
    """``KEY.json`` of a sample.

    Raises:
        ValueError: no JSON, without impression or labels, or with a value of another kind; one line says which.

    Example:
        >>> parse_sample(b'{"impression": "Edema.", "labels": ["Edema"]}')["labels"]
        ['Edema']
        >>> parse_sample(b'{"impression": "Edema.", "labels": 3}')
        Traceback (most recent call last):
        ...
        ValueError: labels: Input should be a valid array
    """
    from pydantic import ValidationError

    try:
        found: SampleMetadata = _adapters()[0].validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    for name in NEEDED:
        if name not in found:
            raise ValueError(f"no {name!r} in its json")
    return found


def manifest_problem(text: str) -> str | None:
    """The first value of a ``manifest.json`` of another kind or out of its bounds, on one line; None where none is.

    Example:
        >>> manifest_problem('{"resolution": -1}')
        'resolution: Input should be greater than or equal to 1'
    """
    from pydantic import ValidationError

    try:
        _adapters()[1].validate_json(text, strict=True)
    except ValidationError as error:
        return first_problem(error)
    return None


@cache
def _adapters() -> "tuple[TypeAdapter[SampleMetadata], TypeAdapter[Mapping[str, object]]]":
    """Made at first use: pydantic is a quarter of a second."""
    from pydantic import TypeAdapter

    return (
        cast("TypeAdapter[SampleMetadata]", TypeAdapter(Sample)),
        cast("TypeAdapter[Mapping[str, object]]", TypeAdapter(Stored)),
    )
