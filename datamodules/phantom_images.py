"""Phantoms as images, for the small components that are trained on pixels (autoencoder, domain classifier)."""

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from meddiff.common.draws import generator
from meddiff.common.ranges import COUNT, COUNT_OR_NONE, check_ranges
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.shards.access import Access, access_of
from meddiff.shards.batches import ImageBatch, ImageItem


class PhantomImages(Dataset[ImageItem]):
    """Rendered phantoms of one split."""

    def __init__(self, cohort: PhantomCohort, indices: list[int]) -> None:
        self.cohort, self.indices = cohort, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> ImageItem:
        sample = self.cohort[self.indices[item]]
        image = torch.from_numpy(sample.image).float() / 127.5 - 1.0  # (H, W)
        return {"image": image.expand(3, -1, -1), "key": sample.key, "labels": sample.labels}


class PhantomImagesDataModule(L.LightningDataModule):
    """Phantoms as images, rendered in the workers, for the small autoencoder and the domain classifier.

    Args:
        phantom: the generator's options.
        batch_size: images a step and process.
        num_workers: rendering processes.
        val_images: images of the validation split that are used.
    """

    def __init__(
        self,
        phantom: PhantomOptions = PhantomOptions(),  # noqa: B008 (frozen dataclass)
        batch_size: int = 16,
        num_workers: int = 1,
        val_images: int = 128,
    ) -> None:
        super().__init__()
        self.cohort = PhantomCohort(phantom)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.val_images, self.seed = val_images, phantom.seed
        check_ranges("images", self, batch_size=COUNT, num_workers=COUNT_OR_NONE, val_images=COUNT)

    def cohorts(self) -> list[tuple[str, Access]]:
        """Name and access: phantoms are made here."""
        return [("phantom", access_of("phantom"))]

    def _split(self, name: str) -> list[int]:
        return [index for index in range(len(self.cohort)) if self.cohort.split_of(index) == name]

    def _loader(self, indices: list[int]) -> DataLoader[ImageItem]:
        return DataLoader(
            PhantomImages(self.cohort, indices),
            self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate_images,
        )

    def train_dataloader(self) -> DataLoader[ImageItem]:
        indices = self._split("train")
        order = generator(self.seed, "images", 0).permutation(len(indices))
        return self._loader([indices[i] for i in order])

    def val_dataloader(self) -> DataLoader[ImageItem]:
        return self._loader(self._split("val")[: self.val_images])


def collate_images(samples: list[ImageItem]) -> ImageBatch:
    """The images of a batch along a new first axis."""
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "key": [sample["key"] for sample in samples],
        "labels": [sample["labels"] for sample in samples],
    }
