"""Numbers of steps in the place of data, for a module that draws its own batches. Source: own."""

import lightning as L
from torch.utils.data import DataLoader, Dataset

from meddiff.common.errors import UserError


class StepsDataModule(L.LightningDataModule):
    """As many batches as micro-batches are taken: each is its number.

    The prior of prototype activations draws rows and noise of a step by its number (it has no cohort of its own).
    """

    def train_dataloader(self) -> DataLoader[int]:
        """
        Raises:
            UserError: nobody has said when to stop.
        """
        assert self.trainer is not None
        if self.trainer.max_steps < 1:
            raise UserError("trainer.max_steps is not set: without data of its own nothing else ends this training.")
        return DataLoader(Steps(self.trainer.max_steps * self.trainer.accumulate_grad_batches), batch_size=None)


class Steps(Dataset[int]):
    """0 to ``number`` - 1."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, place: int) -> int:
        if place >= self.number:
            raise IndexError(place)
        return place
