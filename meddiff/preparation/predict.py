"""Shards through Lightning's ``predict``: any number of GPUs and nodes, each rank writes whole shards. Source: own.

The encoder is a LightningModule, the data are slices of items decoded by worker processes. Ranks take every n-th shard,
and a VAE pass takes the same images whatever their number, so the bytes do not depend on it.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.utils.data import DataLoader, Dataset

from meddiff.common.errors import UserError
from meddiff.common.progress import Bar, progress_bar
from meddiff.models.backbones import load_vae
from meddiff.preparation.encode import ENCODE_BATCH, Item, Slice, encoded_slices, make_slice
from meddiff.preparation.jobs import Job, usable_cores
from meddiff.shards.members import IMAGE_SPLITS
from meddiff.shards.one_shard import Pair
from meddiff.shards.sample import CohortSample
from meddiff.shards.writer import ShardWriter

#: Images a VAE pass takes on a GPU; fixed, because the bytes depend on it.
GPU_BATCH = 16
#: Number of a job, whether it is its last slice, and the slice or the sentence of a :class:`UserError`.
Found: TypeAlias = tuple[int, bool, Slice | str]


class Slices(Dataset[Found], Generic[Item]):
    """Slices of the items of some jobs, in order."""

    def __init__(
        self, jobs: Sequence[Job[Item]], make_source: Callable[[], Callable[[Item], CohortSample]], size: int
    ) -> None:
        self.jobs, self.make_source, self.size = jobs, make_source, size
        self.places = [(number, start) for number, job in enumerate(jobs) for start in range(0, len(job.items), size)]
        self._make: Callable[[Item], CohortSample] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> Found:
        self._make = self._make or self.make_source()
        number, start = self.places[place]
        job, end = self.jobs[number], start + self.size
        try:
            found: Slice | str = make_slice(self._make, job.plan.keys[start:end], job.items[start:end])
        except UserError as error:  # torch would bury its sentence in a traceback
            found = str(error)
        return number, end >= len(job.items), found


class ShardEncoder(lightning.LightningModule, Generic[Item]):
    """Encodes slices and writes a shard when its last slice has come.

    Memory holds the latents of one shard; images only of splits that store them.
    """

    def __init__(
        self,
        jobs: Sequence[Job[Item]],
        make_source: Callable[[], Callable[[Item], CohortSample]],
        writer: ShardWriter,
        show_progress: bool = True,
    ) -> None:
        super().__init__()
        self.jobs, self.make_source, self.writer, self.show_progress = jobs, make_source, writer, show_progress
        self._pairs: list[Pair] = []
        self._unreadable: dict[str, str] = {}
        self._bar: Bar | None = None

    def configure_model(self) -> None:
        if not hasattr(self, "vae"):
            there = self.writer.header.latent != "none"
            self.vae = load_vae(self.writer.header.vae["source"]) if there else None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return None

    def predict_dataloader(self) -> DataLoader[Found]:
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        own = self.jobs[self.trainer.global_rank :: self.trainer.world_size]
        slices = Slices(own, self.make_source, GPU_BATCH if on_gpu else ENCODE_BATCH)
        # one core stays with each rank's main process
        workers = max(1, usable_cores() // max(1, self.trainer.num_devices) - 1) if on_gpu else 0
        self.own = own
        return DataLoader(slices, batch_size=None, num_workers=workers, prefetch_factor=2 if workers else None)

    def transfer_batch_to_device(self, batch: Found, device: torch.device, dataloader_idx: int) -> Found:
        return batch  # samples stay where they are; encode_images moves pixels

    def on_predict_start(self) -> None:
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # as in the pool: the bytes depend on it
        ranks = self.trainer.world_size
        self._bar = progress_bar(
            sum(len(job.items) for job in self.own),
            "img",
            f"prepare {self.writer.header.cohort}" + (f" (rank 0 of {ranks})" if ranks > 1 else ""),
            self.show_progress and self.trainer.is_global_zero,
        )

    def predict_step(self, batch: Found) -> int:
        """Encode a slice; returns the number of its items."""
        number, last, found = batch
        if isinstance(found, str):
            raise UserError(found)
        pairs = list(encoded_slices([found], self.vae, self._unreadable))
        if self.writer.header.pictures != "all":
            for sample in found.samples:
                if sample.split not in IMAGE_SPLITS:  # only its size is still needed
                    sample.image = np.broadcast_to(np.uint8(0), sample.image.shape)
        self._pairs += pairs
        if last:
            self.writer.write_planned(self.own[number].plan, self._pairs, self._unreadable)
            self._pairs, self._unreadable = [], {}
        done = len(found.samples) + len(found.unreadable)
        if self._bar is not None:
            self._bar.update(done)
        return done

    def close_bar(self) -> None:
        """Leave the bar as it is, and its line."""
        if self._bar is not None:
            self._bar.close()

    def on_predict_end(self) -> None:
        self.close_bar()
        self.trainer.strategy.barrier("prepare")  # rank 0 goes on to the manifest


def predict_jobs(
    make_source: Callable[[], Callable[[Item], CohortSample]],
    jobs: Sequence[Job[Item]],
    writer: ShardWriter,
    accelerator: str = "auto",
    devices: int | str = "auto",
    num_nodes: int = 1,
    show_progress: bool = True,
) -> bool:
    """Write shards with Lightning; arguments as in :func:`meddiff.preparation.pool.write_jobs` and of ``lightning.Trainer``.

    Returns:
        whether this process is rank 0, which goes on to write the manifest.

    Raises:
        UserError: such devices are not there, or a shard cannot be written.
        KeyboardInterrupt: Ctrl-C; the shard that was being written is not there.
    """
    try:
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy="ddp" if num_nodes > 1 or devices not in (1, "1") else "auto",
            deterministic="warn",  # of several ways to convolve, always the same
            benchmark=False,
            use_distributed_sampler=False,  # predict_dataloader shares whole shards out
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except MisconfigurationException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"prepare cannot use accelerator {accelerator}, devices {devices}: {reason}") from error
    encoder = ShardEncoder(jobs, make_source, writer, show_progress)
    try:
        trainer.predict(encoder, return_predictions=False)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning makes an exit of it
            raise end.__context__ from None
        raise
    finally:
        encoder.close_bar()  # an error's sentence begins on a line of its own
    return trainer.is_global_zero
