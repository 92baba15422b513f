"""The data module of every training on latents (source: own; design decisions 5 and 6)."""

import os
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from datamodules import streaming as remote
from datamodules.datasets import EvaluationBatches, PositionedDataset, ShardLoader, TrainStream
from datamodules.items import Rules
from datamodules.prompts import Prompt, Texts, load_texts, missing_texts, texts_digest
from datamodules.stream import align_accumulation, check_batch_size
from meddiff.common.errors import UserError
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.index import check_sizes
from meddiff.shards.manifest import Manifest
from meddiff.shards.split_folders import other_folder_problems


class LatentShardsDataModule(L.LightningDataModule):
    """Latents, captions, labels and all random numbers of training and evaluation, from a folder of latent shards.

    Training is one endless stream of per-epoch permutations, a function of (seed, epoch) alone; it goes on exactly
    where a checkpoint left it, with any number of ranks, workers, accumulated batches, and any batch size. Batches are
    the dictionaries of :func:`datamodules.items.make_batch`.

    Args:
        shards: the folder ``lightning prepare`` wrote; or URLs of shards (``pipe:``, http(s), s3; lists and braces).
        batch_size: samples of one optimiser step **in total**, over all ranks and accumulated micro-batches; each rank
            gets ``batch_size / (ranks * accumulate_grad_batches)`` at a time, which must come out even.
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
    ) -> None:
        super().__init__()
        self.splits_from = splits_from or {}
        self.shards = shards
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.seed, self.prompt, self.mean_only = seed, prompt, mean_only
        self.train_split, self.val_split, self.test_split = train_split, val_split, test_split
        self.synthetic_prompts = synthetic_prompts
        self.pin_memory, self.epoch_size, self.manifest_path = pin_memory, epoch_size, manifest
        self.streaming = streaming or remote.is_remote(shards)
        self._manifest: Manifest | None = None
        self._texts: Texts | None = None
        self._datasets: dict[str, LatentShardsDataset] = {}
        # Images consumed = _base + (optimiser steps since _base_step) * _base_batch; see images_consumed.
        self._base, self._base_batch = 0, batch_size
        self._base_step: int | None = None
        self._bound_to: L.Trainer | None = None
        self._stream_opened = False

    # What is there ---------------------------------------------------------------------------------------------------

    @classmethod
    def read_manifest(cls, **init_args: Any) -> Manifest | None:
        """The manifest that a data module of these arguments would use; None when it cannot be read (see preflight)."""
        try:
            return cls(**init_args).manifest
        except UserError:
            return None

    @classmethod
    def preflight(cls, **init_args: Any) -> list[str]:
        """One sentence for each missing or broken thing, each with its remedy; looks at the disk only."""
        module = cls(**init_args)
        wanted = (module.prompt, module.synthetic_prompts)
        if module.streaming:
            return missing_texts(*wanted) + remote.missing_pieces(module.shards, module.manifest_path)
        try:
            manifest, folder = module.manifest, module._folder()
        except UserError as error:
            return [*missing_texts(*wanted), str(error), *module._other_folders(None)]
        records = manifest.split(module.train_split)
        have = ", ".join(sorted({shard.split for shard in manifest.shards})) or "none"
        found = missing_texts(*wanted, manifest) + module._other_folders(manifest)
        if not records:
            found.append(f"no samples of split {module.train_split!r} at {folder} (it has: {have})")
        return found + check_sizes(folder, [*records, *manifest.split(module.val_split)])

    @property
    def manifest(self) -> Manifest:
        """Read at first use.

        Raises:
            UserError: there is none, or it is damaged.
        """
        if self._manifest is None:
            self._manifest = (
                remote.read_manifest(self.manifest_path) if self.streaming else Manifest.read(self._folder())
            )
        return self._manifest

    @property
    def texts(self) -> Texts | None:
        """Class -> synthetic impressions, read at first use; None unless ``prompt`` is "synthetic".

        Raises:
            UserError: the file is not fit for this cohort.
        """
        if self._texts is None:
            self._texts = load_texts(self.prompt, self.synthetic_prompts, self.manifest)
        return self._texts

    def dataset(self, split: str) -> LatentShardsDataset:
        """A local split as it is stored: latents, metadata, images and masks by index."""
        if split not in self._datasets:
            self._datasets[split] = LatentShardsDataset(self.splits_from.get(split) or self._folder(), split)
        return self._datasets[split]

    def _other_folders(self, manifest: Manifest | None) -> list[str]:
        """What is wrong with the folders of ``splits_from``, a sentence each."""
        if self.train_split in self.splits_from:
            return [f"splits_from names {self.train_split!r}, the split of training: give its folder as shards"]
        others = self.splits_from.items()
        return [line for split, other in others for line in other_folder_problems(split, other, manifest)]

    # Position --------------------------------------------------------------------------------------------------------

    @property
    def images_consumed(self) -> int:
        """Images the optimiser has seen, over all ranks; the position of the stream.

        Derived from ``trainer.global_step``, never from the loader: Lightning fetches a batch ahead, workers more.
        Until Lightning has restored ``global_step`` (it does so after this module's state) the stored number stands.
        """
        if self.trainer is None or self._base_step is None:
            return self._base
        return self._base + max(0, self.trainer.global_step - self._base_step) * self._base_batch

    @images_consumed.setter
    def images_consumed(self, images: int) -> None:
        self._base, self._base_step, self._bound_to = images, None, None

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it is relative to."""
        step = self.trainer.global_step if self.trainer is not None else 0
        samples = self._samples()
        facts = {"seed": self._seed(), "samples": samples, "prompt": self._prompt()}
        return {"images_consumed": self.images_consumed, "global_step": step, **facts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a stored position; says so when the seed, the data set or the texts are others."""
        self.images_consumed = int(state_dict["images_consumed"])
        self._base_step = state_dict.get("global_step")
        self._base_batch = self.batch_size
        for name, value in (("seed", self._seed()), ("samples", self._samples()), ("prompt", self._prompt())):
            if state_dict.get(name, value) != value:
                rank_zero_warn(
                    f"The checkpoint was made with {name} {state_dict[name]}, now it is {value}: training goes on "
                    f"after {self._base} images, but not as an uninterrupted run would."
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
        step = self.trainer.global_step
        if self._base_step is None or step >= self._base_step:
            self._base, self._base_step = self.images_consumed, step
        self._base_batch, self._bound_to = self.batch_size, self.trainer
        align_accumulation(self.trainer)

    # Lightning's hooks -----------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Build the offset indices once per node, so that ranks find them in the cache."""
        if not self.streaming:
            for split in (self.train_split, self.val_split):
                if split in self.splits_from or self.manifest.samples(split):
                    self.dataset(split)

    def setup(self, stage: str) -> None:
        _ = self.manifest, self.texts  # refuse what is missing before anything is built
        if found := self._other_folders(self.manifest):
            raise UserError(". ".join(found))
        self._stream_opened = False
        if self._bound_to is not None and self._bound_to is not self.trainer:
            self.images_consumed = 0  # a new trainer without a checkpoint is a new run
        if stage == "fit":
            check_batch_size(self.batch_size, self._world(), self._accumulate())

    def train_dataloader(self) -> ShardLoader:
        """Endless micro-batches of this rank; ``len()`` is undefined."""
        self._bind_position()
        stream: PositionedDataset
        rules, share = self._rules(), (self._rank(), self._world(), self._accumulate())
        if self.streaming:
            urls = remote.split_urls(remote.expand_urls(self.shards), self.train_split, default=True)
            stream = remote.StreamingTrain(
                urls, self.manifest, rules, self.batch_size, self._open_at, self._samples(), *share
            )
            if self._base:
                rank_zero_warn(
                    f"Streamed shards cannot be entered in the middle: after {self._base} images training goes on "
                    f"from the beginning of epoch {self._base // self._samples()}."
                )
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
        share = (self._rules(), self.eval_batch_size, self._rank(), self._world())
        if self.streaming and split not in self.splits_from:
            urls = remote.split_urls(remote.expand_urls(self.shards), split)
            return self._loader(remote.StreamingEvaluation(urls, self.manifest, *share), workers=1)
        batches = EvaluationBatches(self.dataset(split), *share)
        return self._loader(batches, sampler=batches.sampler())

    def _loader(self, dataset: Any, workers: int | None = None, **options: Any) -> ShardLoader:
        number = self.num_workers if workers is None else min(workers, self.num_workers)
        pin = self.pin_memory
        if pin is None:
            pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return ShardLoader(
            dataset, batch_size=None, num_workers=number, persistent_workers=number > 0, pin_memory=pin, **options
        )

    def _open_at(self) -> int:
        self._stream_opened = True
        return self.images_consumed

    def _rules(self) -> Rules:
        return Rules.of(self.manifest, self._seed(), self.prompt, self.mean_only, self.texts)

    def _prompt(self) -> str:
        """The kind of text, with a digest where it depends on a file."""
        return self.prompt if self.texts is None else f"{self.prompt} (texts {texts_digest(self.texts)})"

    def _seed(self) -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed

    def _samples(self) -> int:
        """Samples of one training epoch."""
        if self.streaming and self.epoch_size:
            return self.epoch_size
        return self.manifest.samples(self.train_split)

    def _folder(self) -> str:
        folders: Sequence[str] = [self.shards] if isinstance(self.shards, str) else self.shards
        if len(folders) != 1 or folders[0].endswith(".tar"):
            raise UserError(f"shards {self.shards} are not one folder: give the folder that holds manifest.json")
        return folders[0]

    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    def _accumulate(self) -> int:
        return self.trainer.accumulate_grad_batches if self.trainer is not None else 1
