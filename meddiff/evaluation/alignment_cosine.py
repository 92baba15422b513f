"""The cosine of an image and its prompt in the space of BioViL-T, where its files are given.

Beside the mean cosine of drawn images with their own prompts stand that with each other's prompts and that of real images:
alone it says nothing, since all chest X-rays and all reports are alike in that space. A model that was conditioned on this text
encoder (RadEdit) is favoured by it. Source: spec/evaluation_beyond.md section 6; controls own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.evaluation.alignment_options import AlignmentOptions
from meddiff.evaluation.feature_cache import Features
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.metrics.functional.alignment import mean_over_sets, retrieved
from meddiff.models.biovil_t import LONGEST, BiovilT
from meddiff.models.eight_bits import eight_bits
from meddiff.shards.dataset import LatentShardsDataset

#: Name of the features, and of the figures.
COSINE = "biovil_t"
FIGURES = {"cosine": f"alignment_{COSINE}", "cosine_retrieval": f"alignment_{COSINE}_retrieval"}


class CosineReader:
    """Vectors of images and of prompts.

    Args:
        folder: of BioViL-T's encoders.
        device: that reads images.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.encoders = BiovilT(folder, device)

    def images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, D) of length 1, on the CPU; NaN for an image that is not finite."""
        pixels = eight_bits(images).permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
        found = torch.stack([self.encoders.image_vector(one) for one in pixels])
        broken = ~images.isfinite().flatten(1).all(dim=1).cpu()  # as bytes they would be black
        return found.masked_fill(broken[:, None], torch.nan)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, D) of length 1, on the CPU."""
        return torch.stack([self.encoders.text_vector(one) for one in texts])

    def check(self, split: LatentShardsDataset, indices: Sequence[int]) -> None:
        """Refuse encoders that do not fit together, and prompts that are too long, before anything is drawn.

        Raises:
            UserError: one of them.
        """
        self.encoders.similarity(split.image(indices[0]), prompt(split, indices[0]))
        long = sum(self.encoders.tokens(prompt(split, i)) > LONGEST for i in indices)
        if long:
            raise UserError(
                f"alignment: {long} of {len(indices)} prompts of the split {split.split!r} of {split.folder} have more than "
                f"{LONGEST} tokens, which BioViL-T does not read: leave out --alignment.biovil_t, or shorten those reports."
            )


def prompt(split: LatentShardsDataset, index: int) -> str:
    """What a drawn image was asked for."""
    return str(split.metadata(index)["impression"])


def add_cosine(
    result: Result,
    found: Mapping[str, Features | None],
    texts: Tensor,
    own: Tensor,
    orders: Mapping[str, Sequence[Sequence[int]]],
    keys: Sequence[str],
    options: AlignmentOptions,
) -> None:
    """Add columns and figures to what the classifier found.

    Args:
        result: of alignment; changed.
        found: set of images -> features; None where an image was not finite.
        texts: (N, D) vectors of the prompts.
        own: (N,) number of each prompt's set of labels.
        orders: control -> orders of the drawn images under the prompts.
        keys: of the prompts, each of which is ranked among ``options.candidates``, its own included; the others have other
            labels.
    """
    ranked = _others(own, keys, options)
    rows: list[Row] = []
    for row in result.tables["alignment"].rows:
        control = str(row["control"])
        features = found["" if control in orders else control]
        cells: dict[str, float | None] = dict.fromkeys(FIGURES)
        if features is not None:
            cosines = features[COSINE].double() @ texts.double().T  # (N, N), of an image (row) and a prompt
            turns = orders.get(control, [range(len(keys))])
            some = [_figures(cosines[list(order)], own, ranked) for order in turns]
            cells = {name: sum(one[k] for one in some) / len(some) for k, name in enumerate(FIGURES)}
        rows.append({**row, **cells})
        named = {FIGURES[name]: value for name, value in cells.items() if value is not None}
        result.figures |= {f"{control}/{name}" if control else name: value for name, value in named.items()}
        shown = result.controls.get(control)
        if isinstance(shown, dict):
            shown |= named
    first = (*result.tables["alignment"].first, *FIGURES)
    result.tables["alignment"] = Table(rows, first)
    result.figures["alignment_biovil_t_chance"] = sum(1 / len(some) for some in ranked) / len(ranked)


def _figures(cosines: Tensor, own: Tensor, ranked: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Of (N, N) cosines the mean with the own prompt, and how often that comes first: mean over sets of labels."""
    first = [
        retrieved(row[list(columns)][None], torch.zeros(1, dtype=torch.long)).first[0]
        for row, columns in zip(cosines, ranked, strict=True)
    ]
    return float(cosines.diagonal().mean()), mean_over_sets(torch.stack(first), own.tolist())


def _others(own: Tensor, keys: Sequence[str], options: AlignmentOptions) -> list[list[int]]:
    """Of each prompt the numbers of those that it is ranked among, its own first; drawn by its key."""
    sets, found = own.tolist(), []
    for i, key in enumerate(keys):
        order = generator(options.seed, "alignment prompts", key).permutation(len(keys))
        found.append([i, *[int(j) for j in order if sets[j] != sets[i]][: options.candidates - 1]])
    return found
