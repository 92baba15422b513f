"""What MS-COCO's grounding has to be read against. Source: own, as :mod:`meddiff.evaluation.priors`."""

from collections.abc import Sequence
from dataclasses import dataclass

from meddiff.evaluation.coco import CocoSample
from meddiff.evaluation.priors import grounding_priors
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import Pixels
from meddiff.shards.dataset import LatentShardsDataset


@dataclass(frozen=True)
class ShownObject:
    """A class that a caption of an image names, and where the image shows it.

    Attributes:
        mask: (H, W) bool, the union of its instances.
    """

    key: str
    label: str
    phrase: str
    mask: Pixels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the stored image."""
        height, width = self.mask.shape
        return height, width

    def box_mask(self) -> Pixels:
        """The mask itself."""
        return self.mask


def coco_priors(
    split: LatentShardsDataset,
    samples: Sequence[CocoSample],
    seed: int = 0,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen dataclass)
    show_progress: bool = False,
) -> dict[str, dict[str, float]]:
    """Location prior, centre and random maps, as they stand in ``controls.json``.

    Every (image, class) counts once however many captions name it, as in the figures; otherwise the prior, which answers an
    image with the masks of all others, would be told its answer by the image's other captions.
    """
    first: dict[tuple[str, str], CocoSample] = {}
    for sample in samples:
        first.setdefault((sample.key, sample.label), sample)
    objects = [
        ShownObject(one.key, one.label, one.caption, split.masks(one.index)[one.label]) for one in first.values()
    ]
    return grounding_priors(None, objects, sorted({one.label for one in objects}), seed, ranks, show_progress)
