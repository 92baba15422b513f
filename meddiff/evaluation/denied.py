"""Findings that a report denies: the absent ones that a radiologist vouches for.

A cohort whose reports are cut into sentences (PadChest-GR) says in the attribute ``denied`` which classes an image's report
denies, and keeps the sentences that do as phrases without boxes. The words that ask are those of an image that has the finding:
asked with "No effusion." a map would differ by its sentence, not only by what the image shows. Source: own.
"""

from collections.abc import Sequence

import numpy as np

from meddiff.common.draws import generator
from meddiff.evaluation.samples import GroundingSample, balanced
from meddiff.shards.dataset import LatentShardsDataset


def denied_findings(
    split: LatentShardsDataset, samples: Sequence[GroundingSample], limit: int | None = None, seed: int = 0
) -> list[tuple[GroundingSample, GroundingSample]]:
    """(image, phrase): images whose report denies a finding, each with a phrase of another image that has it.

    Args:
        split: cohorts that deny nothing give none.
        samples: whose phrases are asked; a class that none of them has cannot be.
        limit: at most so many, balanced over classes; None takes all.
        seed: of the subset.

    Returns:
        in the order of the split; the first of each pair has no boxes, and the denial as its phrase.
    """
    phrases: dict[str, list[GroundingSample]] = {}
    for one in samples:
        phrases.setdefault(one.label, []).append(one)
    images: list[GroundingSample] = []
    for index, key in enumerate(split.keys):
        metadata = split.metadata(index)
        denied = [label for label in metadata["attributes"].get("denied", ()) if label in phrases]
        size = (int(metadata["height"]), int(metadata["width"]))
        said = {phrase["label"]: phrase["text"] for phrase in metadata["phrases"] if not phrase["boxes"]}
        images += [
            GroundingSample(index, key, label, said.get(label, label), np.empty((0, 4)), size) for label in denied
        ]
    if limit is not None:
        images = balanced(images, limit, seed) if images else []
    found = []
    for image in images:
        draw = generator(0, "denied finding", image.key, image.label)
        found.append((image, phrases[image.label][int(draw.integers(len(phrases[image.label])))]))
    return found
