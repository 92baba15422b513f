"""The data module of every training on latents (source: own; design decisions 5 and 6)."""

import os
from typing import ClassVar

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Dataset, DistributedSampler

from datamodules import streaming as remote
from datamodules.datasets import EvaluationBatches, Failure, PositionedDataset, ShardLoader, TrainStream, as_it_is
from datamodules.items import Rules
from datamodules.position import StreamPosition
from datamodules.preflight import RANGES
from datamodules.prompts import Prompt, Texts, load_texts, texts_digest
from datamodules.shard_problems import shard_problems
from datamodules.stream import accumulate_as_needed, align_accumulation, check_batch_size, rank_problems
from meddiff.common.errors import UserError, refuse
from meddiff.common.ranges import range_problems
from meddiff.shards.batches import LatentBatch
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.manifest import Manifest
from meddiff.shards.split_folders import Cohorts, cohorts_of, one_folder, splits_from_problems
from meddiff.shards.stored import with_latents


class LatentShardsDataModule(L.LightningDataModule):
    """Latents, captions, labels and all random numbers of training and evaluation, from a folder of latent shards.

    Training is one endless stream of per-epoch permutations, a function of (seed, epoch) alone; it goes on exactly
    where a checkpoint left it, with any number of ranks, workers, accumulated batches, and any batch size. Batches are
    :class:`~meddiff.shards.batches.LatentBatch` dictionaries.

    Args:
        shards: the folder ``lightning prepare`` wrote; or URLs of shards (``pipe:``, http(s), s3; lists and braces).
        batch_size: samples of one optimiser step **in total**, over all ranks and accumulated micro-batches; each rank
            gets ``batch_size / (ranks * accumulate_grad_batches)`` at a time, which must come out even.
        max_batch_per_device: the most samples a rank computes at a time, from which ``accumulate_grad_batches`` follows.
        eval_batch_size: samples per batch and rank in validation, test and prediction; changes no result.
        num_workers: loader processes per rank; changes no result.
        seed: of order and draws; null takes the seed of ``seed_everything``.
        prompt: "impression" trains on the report's text, "synthetic" on an impression drawn from those written for one
            of the image's classes, "label" on the labels in drawn order, joined by blanks, "mixed" on impression and
            label by turns, drawn for each image and epoch.
        synthetic_prompts: CSV (label,impression) of the texts for "synthetic"; null takes the suite's own.
        mean_only: take the posterior's mean, without a draw.
        train_split: split of the training stream.
        val_split: split of validation and prediction.
        test_split: split of testing.
        pin_memory: null pins when the trainer computes on a GPU.
        streaming: read shards in sequence through ``webdataset`` with approximate resume; implied by URLs.
        epoch_size: samples of one epoch, for streaming; null takes the manifest's count.
        manifest: path or URL of ``manifest.json``, for streaming.
        splits_from: split -> the folder it is read from instead, e.g. ``{grounding: data/ms-cxr-512}``; prepared with
            the same VAE at the same resolution.
    """

    endless: ClassVar[bool] = True  #: no epoch ends: the command refuses trainer options that are shares of one

    def __init__(
        self,
        shards: str | list[str],
        batch_size: int = 256,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        seed: int | None = None,
        prompt: Prompt = "impression",
        synthetic_prompts: str | None = None,
        mean_only: bool = False,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "fidelity",
        pin_memory: bool | None = None,
        streaming: bool = False,
        epoch_size: int | None = None,
        manifest: str | None = None,
        splits_from: dict[str, str] | None = None,
        max_batch_per_device: int | None = None,
    ) -> None:
        super().__init__()
        self.shards, self.splits_from = shards, splits_from or {}
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.seed, self.prompt, self.max_batch_per_device = seed, prompt, max_batch_per_device
        self.train_split, self.val_split, self.test_split = train_split, val_split, test_split
        self.synthetic_prompts, self.mean_only = synthetic_prompts, mean_only
        self.pin_memory, self.epoch_size, self.manifest_path = pin_memory, epoch_size, manifest
        self.streaming = streaming or remote.is_remote(shards)
        refuse(range_problems(vars(self), RANGES))
        self._manifest: Manifest | None = None
        self._texts: Texts | None = None
        self._datasets: dict[str, LatentShardsDataset] = {}
        self._position = StreamPosition(batch_size)
        self._bound_to: L.Trainer | None = None
        self._stream_opened = False

    # What is there ---------------------------------------------------------------------------------------------------

    @classmethod
    def read_manifest(cls, **init_args: object) -> Manifest | None:
        """The manifest that a data module of these arguments would use; None when it cannot be read (see preflight)."""
        try:
            return cls(**init_args).manifest  # type: ignore[arg-type]  # jsonargparse has checked them
        except UserError:
            return None

    @classmethod
    def preflight(cls, **init_args: object) -> list[str]:
        """One sentence for each missing or broken thing, each with its remedy; looks at the disk only."""
        return shard_problems(cls(**init_args))  # type: ignore[arg-type]  # as above

    @classmethod
    def preflight_ranks(cls, ranks: int, accumulate: int, **init_args: object) -> list[str]:
        """A sentence where a batch cannot be shared by so many ranks and accumulated micro-batches."""
        return rank_problems(ranks, accumulate, init_args)

    @property
    def manifest(self) -> Manifest:
        """Read at first use.

        Raises:
            UserError: there is none, or it is damaged.
        """
        if self._manifest is None:
            found = remote.read_manifest(self.manifest_path) if self.streaming else Manifest.read(self._folder())
            self._manifest = self.read_as(found, str(self.shards))
        return self._manifest

    def read_as(self, manifest: Manifest, where: str) -> Manifest:
        """What a manifest says to who reads latents; a folder without any is refused."""
        return with_latents(manifest, where)

    def cohorts(self) -> Cohorts:
        """Name and access of every cohort that is read; errors as of ``manifest``."""
        return cohorts_of(self.manifest, self.splits_from)

    @property
    def texts(self) -> Texts | None:
        """Class -> synthetic impressions, read at first use; None unless ``prompt`` is "synthetic".

        Raises:
            UserError: the file is not fit for this cohort.
        """
        if self._texts is None:
            self._texts = load_texts(self.prompt, self.synthetic_prompts, self.manifest)
        return self._texts

    def has_split(self, split: str) -> bool:
        """Whether there are samples of a split, here or in the folder that ``splits_from`` names for it."""
        return split in self.splits_from or self.manifest.samples(split) > 0

    def dataset(self, split: str) -> LatentShardsDataset:
        """A local split as it is stored: latents, metadata, images and masks by index."""
        if split not in self._datasets:
            self._datasets[split] = LatentShardsDataset(self.splits_from.get(split) or self._folder(), split)
        return self._datasets[split]

    # Position --------------------------------------------------------------------------------------------------------

    @property
    def images_consumed(self) -> int:
        """Images the optimiser has seen, over all ranks; the position of the stream.

        Derived from ``trainer.global_step``, never from the loader: Lightning fetches a batch ahead, workers more.
        Until Lightning has restored ``global_step`` (it does so after this module's state) the stored number stands.
        """
        return self._position.at(None if self.trainer is None else self.trainer.global_step)

    @images_consumed.setter
    def images_consumed(self, images: int) -> None:
        self._position.put(images)
        self._bound_to = None

    def state_dict(self) -> dict[str, int | str]:
        """The position, and what it is relative to."""
        step = self.trainer.global_step if self.trainer is not None else 0
        return {"images_consumed": self.images_consumed, "global_step": step, **self._facts()}

    def load_state_dict(self, state_dict: dict[str, int | str]) -> None:
        """Go on from a stored position; says so when the seed, the data set or the texts are others."""
        images, step = int(state_dict["images_consumed"]), state_dict.get("global_step")
        self._bound_to = None
        self._position.put(images, None if step is None else int(step))
        self._position.batch_size = self.batch_size
        for name, value in self._facts().items():
            if state_dict.get(name, value) != value:
                rank_zero_warn(
                    f"The checkpoint was made with {name} {state_dict[name]}, now it is {value}: training goes on "
                    f"after {images} images, but not as an uninterrupted run would."
                )
        if self.trainer is not None and self._stream_opened:
            raise UserError(
                "the training stream was opened before the checkpoint was restored, so it began at image 0 "
                "(something read trainer.estimated_stepping_batches): set max_steps and leave max_epochs at -1"
            )

    def _bind_position(self) -> None:
        """Count from here with the present batch size; called when a training loader is made."""
        if self.trainer is None:
            return
        self._position.count_from(self.trainer.global_step, self.batch_size)
        self._bound_to = self.trainer
        align_accumulation(self.trainer)

    # Lightning's hooks -----------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Build the offset indices once per node, so that ranks find them in the cache."""
        for split in (self.train_split, self.val_split):
            if not self.streaming and self.has_split(split):
                self.dataset(split)

    def setup(self, stage: str) -> None:
        _ = self.manifest, self.texts  # refuse what is missing before anything is built
        if found := splits_from_problems(self.splits_from, self.train_split, self.manifest, self.read_as):
            raise UserError(". ".join(found))
        self._stream_opened = False
        if self._bound_to is not None and self._bound_to is not self.trainer:
            self.images_consumed = 0  # a new trainer without a checkpoint is a new run
        if stage == "fit":
            accumulate_as_needed(self.trainer, self.batch_size, self.max_batch_per_device)
            check_batch_size(self.batch_size, *self._share()[1:])

    def train_dataloader(self) -> ShardLoader:
        """Endless micro-batches of this rank; ``len()`` is undefined."""
        self._bind_position()
        rules, share = self._rules(), self._share()
        if self.streaming:
            urls = remote.split_urls(remote.expand_urls(self.shards), self.train_split, default=True)
            known = (urls, self.manifest, rules, self.batch_size, self._open_at, self._samples())
            stream: PositionedDataset = remote.StreamingTrain(*known, *share)
            remote.warn_of_beginning(self._position.images, self._samples())
        else:
            stream = TrainStream(self.dataset(self.train_split), rules, self.batch_size, self._open_at, *share)
        return self._loader(stream)

    def val_dataloader(self) -> ShardLoader:
        return self._evaluation(self.val_split)

    def test_dataloader(self) -> ShardLoader:
        return self._evaluation(self.test_split)

    def predict_dataloader(self) -> ShardLoader:
        return self._evaluation(self.val_split)

    # Parts -----------------------------------------------------------------------------------------------------------

    def _evaluation(self, split: str) -> ShardLoader:
        share = (self._rules(), self.eval_batch_size, *self._share()[:2])
        if self.streaming and split not in self.splits_from:
            urls = remote.split_urls(remote.expand_urls(self.shards), split)
            return self._loader(remote.StreamingEvaluation(urls, self.manifest, *share), workers=1)
        batches = EvaluationBatches(self.dataset(split), *share)
        return self._loader(batches, sampler=batches.sampler())

    def _loader(
        self,
        dataset: Dataset[LatentBatch | Failure],
        workers: int | None = None,
        sampler: DistributedSampler[LatentBatch | Failure] | None = None,
    ) -> ShardLoader:
        number = self.num_workers if workers is None else min(workers, self.num_workers)
        pin = self.pin_memory
        if pin is None and self.trainer is not None:
            pin = self.trainer.strategy.root_device.type == "cuda"
        return ShardLoader(
            dataset,
            batch_size=None,
            collate_fn=as_it_is,
            sampler=sampler,
            num_workers=number,
            persistent_workers=number > 0,
            pin_memory=bool(pin),
        )

    def _open_at(self) -> int:
        self._stream_opened = True
        return self.images_consumed

    def _rules(self) -> Rules:
        return Rules.of(self.manifest, self._seed(), self.prompt, self.mean_only, self.texts)

    def _facts(self) -> dict[str, int | str]:
        """What must stay the same for a stream to go on as if uninterrupted; texts out of a file by their digest."""
        prompt = self.prompt if self.texts is None else f"{self.prompt} (texts {texts_digest(self.texts)})"
        return {"seed": self._seed(), "samples": self._samples(), "prompt": prompt}

    def _seed(self) -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed

    def _samples(self) -> int:
        """Samples of one training epoch."""
        return (self.epoch_size if self.streaming else None) or self.manifest.samples(self.train_split)

    def _folder(self) -> str:
        return one_folder(self.shards)

    def _share(self) -> tuple[int, int, int]:
        """This rank, all ranks, accumulated micro-batches."""
        run = self.trainer
        return (0, 1, 1) if run is None else (run.global_rank, run.world_size, run.accumulate_grad_batches)
