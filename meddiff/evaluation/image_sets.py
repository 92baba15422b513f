"""The sets of images that fidelity compares: each rank draws and measures its share of all, and what is found is gathered once.

Source: own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.evaluation.cores import READING, over_cores
from meddiff.evaluation.drawing import DrawingOptions, draw_prompts, read_images, signed
from meddiff.evaluation.feature_cache import (
    Features,
    Images,
    Source,
    cache_folder,
    keep_features,
    measure,
    real_features,
)
from meddiff.evaluation.not_finite import tell
from meddiff.evaluation.progress import DrawingBar
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import evaluation_latents
from meddiff.models.autoencoder import NotFiniteImages, decode, whole_images
from meddiff.models.feature_extractors import Extractor
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class SetOptions(DrawingOptions, Protocol):
    """What of the options of fidelity is needed here."""

    @property
    def weights(self) -> dict[str, str]: ...
    @property
    def statistics(self) -> str | None: ...


@dataclass(frozen=True)
class Drawing:
    """:class:`SetOptions` of measurements that keep no features of real images."""

    sampling: SamplingOptions
    batch_size: int
    seed: int
    weights: dict[str, str] = field(default_factory=dict)
    statistics: str | None = None


@dataclass
class Share:
    """What one rank found of one set.

    Attributes:
        name: of the set.
        indices: of its images, in the order of the features.
        features: extractor -> (N, D) on the CPU.
        broken: keys of images that are not finite; then there are no features.
    """

    name: str
    indices: list[int]
    features: Features
    broken: list[str]


class ImageSets:
    """Features of some sets of images, shared among ranks.

    No rank waits for another before :meth:`gathered`, and none does more than the others by more than one image to draw
    and one to look at, over all sets together: the ranks take turns with what does not divide.

    Args:
        options: of fidelity.
        extractors: by name.
        out: images go to ``images/PART`` there; None keeps them in memory.
        show_progress: draw progress bars.
    """

    def __init__(
        self,
        options: SetOptions,
        extractors: dict[str, Extractor],
        model: LatentDiffusion,
        split: LatentShardsDataset,
        out: Path | None,
        ranks: Ranks,
        show_progress: bool,
    ) -> None:
        self.options, self.extractors, self.model, self.split = options, extractors, model, split
        self.out, self.ranks, self.show_progress = out, ranks, show_progress
        #: Index -> image drawn last, uint8 (H, W, 3); those of this rank.
        self.images: dict[int, NDArray[np.uint8]] = {}
        self._found: list[Share] = []
        self._sets: dict[str, tuple[str, Sequence[int]]] = {}  # name -> title, indices
        self._real: dict[str, Source | None] = {}
        self._drawn = self._seen = 0  # images shared out so far: to be drawn, to be looked at

    def drawn(
        self,
        name: str,
        part: str,
        indices: Sequence[int],
        way: SamplingOptions,
        unet: "UNet2DConditionModel | None" = None,
        borrow: Sequence[str] = (),
    ) -> None:
        """Images drawn for the captions of ``indices``.

        Args:
            part: name of their folder.
            unet: in the place of the model's.
            borrow: folders of other parts that may have some of them already.
        """
        self._sets[name] = part, indices
        keys, prompts = self.split.keys, {i: str(self.split.metadata(i)["impression"]) for i in indices}
        if self.out is not None:
            place, options = self.out / "images" / part, replace(self.options, sampling=way)  # type: ignore[type-var]
            texts = {keys[i]: text for i, text in prompts.items()}
            try:
                others = [self.out / "images" / other for other in borrow]
                draw_prompts(self.model, place, texts, options, others, unet, self.show_progress)
            except NotFiniteImages as error:
                self._found.append(Share(name, [], {}, list(map(str, error.broken))))
                return
            stored: Images = lambda some: signed(read_images(place, [keys[i] for i in some]))  # noqa: E731
            self._look(name, stored, self.ranks.share(indices), part)
            return
        mine, bar = self.ranks.share(indices, self._drawn), DrawingBar(self.show_progress)
        self._drawn += len(indices)
        self.images, broken = {}, []
        _ = self.model.vae  # read before several threads want it

        def draw(some: Sequence[int]) -> tuple[dict[int, NDArray[np.uint8]], list[str]]:
            batch = bar.batch(len(some), way.steps)
            sample = partial(self.model.sample, seed=self.options.seed, options=way, unet=unet, on_step=batch.step)
            images, lost = whole_images(sample, [prompts[i] for i in some], [keys[i] for i in some])
            batch.drawn()
            return {i: images[keys[i]] for i in some if keys[i] in images}, lost

        with bar.over(len(mine), f"drawing {part}"):
            for images, lost in over_cores(draw, mine, self.options.batch_size, self.model.device):
                self.images |= images
                broken += lost
        if broken:
            self._found.append(Share(name, [], {}, broken))
        else:
            self._look(name, lambda some: pixels(np.stack([self.images[i] for i in some])), mine, part)

    def other(self, name: str, images: Images, indices: Sequence[int]) -> None:
        """Images that are made some other way."""
        self._sets[name] = name, indices
        self._look(name, images, self.ranks.share(indices, self._seen), name)
        self._seen += len(indices)

    def real(self, name: str, indices: Sequence[int], source: Source | None = None) -> None:
        """The cohort's own images, or what ``source`` makes of them; their features may be known already."""
        self._sets[name] = name, indices
        self._real[name] = source
        features = real_features(
            self.split,
            indices,
            self.options.weights,
            self.extractors,
            self.model.device,
            self.options.batch_size,
            self._folder(),
            self.ranks,
            self._seen,
            self.show_progress,
            source,
        )
        self._found.append(Share(name, list(self.ranks.share(indices, self._seen)), features, []))
        self._seen += len(indices)

    def gathered(self) -> dict[str, Features | None]:
        """Name -> features (N, D) of the whole set in the order of its indices; None where an image is not finite."""
        shares = self.ranks.gather(self._found)
        found: dict[str, Features | None] = {}
        for name, (title, indices) in self._sets.items():
            mine = [share for share in shares if share.name == name]
            broken = [key for share in mine for key in share.broken]
            if broken:
                tell(NotFiniteImages(np.empty(0, np.uint8), broken, len(indices)), title)
                found[name] = None
                continue
            place = {index: k for k, index in enumerate(index for share in mine for index in share.indices)}
            order = [place[index] for index in indices]
            parts = [share.features for share in mine if share.indices]
            found[name] = {kind: torch.cat([part[kind] for part in parts])[order] for kind in self.extractors}
        if (folder := self._folder()) is not None and self.ranks.world > 1 and self.ranks.is_first:
            for name, source in self._real.items():
                features = found[name] or {}
                weights, device = self.options.weights, self.model.device
                keep_features(self.split, self._sets[name][1], weights, device, folder, features, source)
        return found

    def _look(self, name: str, images: Images, mine: Sequence[int], title: str) -> None:
        device, size = self.model.device, self.options.batch_size
        features = measure(self.extractors, images, mine, device, size, title, self.show_progress)
        self._found.append(Share(name, list(mine), features, []))

    def _folder(self) -> Path | None:
        """Where features of real images are kept."""
        if self.options.statistics:
            return Path(self.options.statistics)
        return None if self.out is None else cache_folder(self.split.folder, self.out)


def pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in [-1, 1]."""
    return signed(torch.from_numpy(images).permute(0, 3, 1, 2))


def through_vae(model: LatentDiffusion, split: LatentShardsDataset, seed: int) -> Images:
    """The real images through the autoencoder: the best that a latent model can do."""

    def images(indices: Sequence[int]) -> Tensor:
        with READING:
            latents = torch.stack([evaluation_latents(split, i, seed) for i in indices]).to(model.device)
        try:
            return pixels(decode(model.vae, latents, model.scaling_factor))
        except NotFiniteImages as error:  # NaN goes through to the distance
            tell(error, "autoencoder")
            return torch.full_like(pixels(error.images), torch.nan)

    return images


def noise(model: LatentDiffusion, split: LatentShardsDataset, seed: int) -> Images:
    """Uniform noise of the images' size: the worst."""
    side = split.manifest.resolution

    def images(indices: Sequence[int]) -> Tensor:
        draws = [generator(seed, "noise image", split.keys[i]).uniform(-1, 1, (3, side, side)) for i in indices]
        return torch.from_numpy(np.stack(draws)).float()

    return images
