"""Shards that cannot be read at random (``pipe:``, http(s), s3), streamed by ``webdataset`` (source: own).

Same batches and the same draws per (seed, epoch, key) as the indexed stream, but a weaker order: shards are permuted
per (seed, epoch), split over ranks and workers, and samples pass a shuffle buffer; the order depends on the number of
ranks and workers. **Resume is approximate**: it begins again at the epoch that contains the images consumed, because a
pipe cannot be entered in the middle.
"""

import random
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import IO

import webdataset as wds
from braceexpand import braceexpand
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.gopen import Pipe
from webdataset.tariterators import group_by_keys, tar_file_expander

from datamodules.datasets import Failure, PositionedDataset
from datamodules.items import Rules, make_batch
from datamodules.stream import check_batch_size
from meddiff.common.draws import generator, torch_seed
from meddiff.common.errors import UserError
from meddiff.common.outside import check_url, sample_key, url_command, url_scheme
from meddiff.shards.batches import LatentBatch
from meddiff.shards.index import LATENT, METADATA
from meddiff.shards.latents import Entry
from meddiff.shards.manifest import Manifest

REMOTE = ("pipe", "http", "https", "s3", "gs", "ais", "hf", "sftp", "scp")
#: How a command ends that was not read to its end: SIGPIPE, as a shell says it or not; curl that cannot write.
STOPPED = [141, -13, 23]
#: Samples held back by the training shuffle.
BUFFER = 2048


def is_remote(shards: str | Sequence[str]) -> bool:
    """Whether shards are given as URLs that have to be streamed."""
    return any(url_scheme(url) in REMOTE for url in ([shards] if isinstance(shards, str) else shards))


def expand_urls(shards: str | Sequence[str]) -> list[str]:
    """One URL per shard: braces expanded.

    Raises:
        UserError: braces that do not pair.
    """
    patterns = [shards] if isinstance(shards, str) else list(shards)
    try:
        return [url for pattern in patterns for url in braceexpand(pattern)]
    except ValueError as error:
        raise UserError(
            f"shards: the braces of {', '.join(patterns)} do not pair ({error}): write {{000..127}}."
        ) from error


def open_url(url: str) -> IO[bytes]:
    """The bytes at a URL or path, from the beginning; a command that fails says so when the stream is closed.

    The command of a URL is started without a shell (:func:`meddiff.common.outside.url_command`), so nothing in a URL can
    become another command. Only ``pipe:`` runs what it says, in a shell: that is what it is for, and it is taken from the
    user's own configuration alone, never from a manifest or another file of a cohort.

    Raises:
        UserError: characters no URL has, or the command that reads such URLs is not installed.
        OSError: the path, or the command, cannot be read.
    """
    scheme = url_scheme(url)
    if scheme == "pipe":
        stream: IO[bytes] = wds.gopen(f"pipe:{url[5:]}", "rb")
        return stream
    if scheme == "hf":  # webdataset asks the hub where the file is, and reads it without a shell
        check_url(url)
        stream = wds.gopen(url, "rb")
        return stream
    if scheme not in REMOTE:
        return Path(re.sub("^file:(//)?", "", url)).open("rb")
    command = url_command(url)
    try:
        stream = Pipe(command, mode="rb", ignore_status=STOPPED)
    except FileNotFoundError:
        raise UserError(f"{url} is read by the command {command[0]}, which is not installed here: install it") from None
    return stream


def shard_name(url: str) -> str:
    """The last ``<split>-<number>.tar`` in a URL or command, or ""."""
    names = re.findall(r"[A-Za-z0-9_]+-\d+\.tar", url)
    return names[-1] if names else ""


def split_urls(urls: Sequence[str], split: str, default: bool = False) -> list[str]:
    """The URLs of one split, told by their file names; with ``default``, all URLs when no file name tells.

    Raises:
        UserError: there are none.
    """
    chosen = [url for url in urls if shard_name(url).rpartition("-")[0] == split]
    if not chosen and default and not any(shard_name(url) for url in urls):
        chosen = list(urls)
    if not chosen:
        raise UserError(f"none of the {len(urls)} shard URLs is of split {split!r}: name {split}-00000.tar and so on")
    return chosen


def read_manifest(address: str | None) -> Manifest:
    """The manifest of streamed shards: a local path, a folder, or anything ``webdataset`` can open.

    Raises:
        UserError: not given, not readable, or not a manifest.
    """
    if address is None:
        raise UserError("streamed shards need their manifest.json: set `manifest` to its path or URL")
    if not is_remote(address):
        return Manifest.read(address)
    try:
        with open_url(expand_urls(address)[0]) as stream:
            text = stream.read().decode()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the manifest at {address} ({error}): check the URL") from None
    return Manifest.parse(text, address)


def read_shards(urls: Sequence[str], epoch: int | None, manifest: Manifest, payload: str = LATENT) -> Iterator[Entry]:
    """Samples of shards one after another.

    Args:
        payload: the member that tensors are made of.

    Raises:
        UserError: a shard cannot be opened, is cut short, a sample lacks a member, or its key could name another place.
    """
    expected = {record.name: record.samples for record in manifest.shards}
    for url in urls:
        seen = 0
        try:
            stream = open_url(url)
            for sample in group_by_keys(tar_file_expander([{"url": url, "stream": stream}])):
                seen += 1
                sample_key(sample["__key__"], url)
                missing = [name for name in (payload, METADATA) if name not in sample]
                if missing:
                    raise UserError(
                        f"{url} holds sample {sample['__key__']!r} without its {missing[0]}: mend that shard"
                    )
                yield Entry(sample["__key__"], epoch, sample[payload], sample[METADATA], url)
        except (OSError, ValueError, EOFError, tarfile.TarError) as error:
            reason = getattr(error, "strerror", None) or error.args[0]
            raise UserError(f"cannot read shard {url} to its end ({reason}): check it and its command") from None
        # A command that dies between two samples looks like a shorter shard.
        if seen != expected.get(shard_name(url), seen):
            raise UserError(f"shard {url} gave {seen} samples, its manifest says {expected[shard_name(url)]}")


def warn_of_beginning(images: int, epoch_size: int) -> None:
    """Say where training goes on after ``images`` images, if any."""
    if images:
        rank_zero_warn(
            f"Streamed shards cannot be entered in the middle: after {images} images training goes on "
            f"from the beginning of epoch {images // epoch_size}."
        )


class StreamingTrain(PositionedDataset):
    """Endless micro-batches of streamed shards; every epoch gives each sample once.

    Args:
        urls: one per shard; manifest: what is in them; rules: how items are made.
        batch_size: samples of one optimiser step over all ranks and accumulated micro-batches.
        position: gives the images consumed; the stream begins at the epoch that contains them.
        epoch_size: samples per epoch over all ranks, to find that epoch.

    Raises:
        UserError: fewer shards than ranks, or no samples.
    """

    def __init__(
        self,
        urls: Sequence[str],
        manifest: Manifest,
        rules: Rules,
        batch_size: int,
        position: Callable[[], int],
        epoch_size: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        super().__init__(position)
        if len(urls) < world:
            raise UserError(f"{len(urls)} streamed shards cannot feed {world} ranks: make smaller shards")
        if epoch_size < 1:
            raise UserError("the manifest counts no training samples: set train_split or epoch_size")
        self.urls, self.manifest, self.rules, self.epoch_size = list(urls), manifest, rules, epoch_size
        self.size = check_batch_size(batch_size, world, accumulate)
        self.rank, self.world = rank, world

    def epoch_entries(self, epoch: int, worker: int, workers: int) -> Iterator[Entry]:
        """One epoch of one worker: its shards in permuted order, through the shuffle buffer."""
        order = generator(self.rules.seed, "shards", epoch).permutation(len(self.urls))
        mine = [self.urls[place] for place in order[self.rank :: self.world][worker::workers]]
        rng = random.Random(torch_seed(self.rules.seed, "shuffle", epoch, self.rank, worker, workers))
        shuffled: Iterator[Entry] = wds.filters._shuffle(
            read_shards(mine, epoch, self.manifest, self.rules.payload), BUFFER, BUFFER // 4, rng
        )
        return shuffled

    def batches(self, start: int, worker: int, workers: int) -> Iterator[LatentBatch]:
        if len(range(self.rank, len(self.urls), self.world)) <= worker:
            return  # more workers than shards: this one has nothing to read
        first = start // self.epoch_size
        entries = (entry for epoch in count(first) for entry in self.epoch_entries(epoch, worker, workers))
        while True:  # batches straddle epochs
            yield make_batch(list(islice(entries, self.size)), self.rules)


class StreamingEvaluation(IterableDataset[LatentBatch | Failure]):
    """One pass over streamed shards in their own order; rank r keeps samples r, r + world, ...; padding has weight 0.

    Every rank reads all shards, so that all have equally many samples; use one worker at most.
    """

    def __init__(
        self, urls: Sequence[str], manifest: Manifest, rules: Rules, batch_size: int, rank: int = 0, world: int = 1
    ) -> None:
        self.urls, self.manifest, self.rules, self.batch_size = list(urls), manifest, rules, batch_size
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[LatentBatch | Failure]:
        entries = padded_share(read_shards(self.urls, None, self.manifest, self.rules.payload), self.rank, self.world)
        try:
            while block := list(islice(entries, self.batch_size)):
                yield make_batch(block, self.rules)
        except UserError as error:
            if get_worker_info() is None:
                raise
            yield Failure(str(error))


def padded_share(entries: Iterable[Entry], rank: int, world: int) -> Iterator[Entry]:
    """Entries rank, rank + world, ...; ranks that the last round does not reach repeat the last entry at weight 0."""
    last, number = None, -1
    for number, last in enumerate(entries):
        if number % world == rank:
            yield last
    if last is not None and number % world < rank:
        yield last._replace(weight=0.0)


def missing_pieces(shards: str | Sequence[str], manifest: str | None) -> list[str]:
    """Sentences about what streaming needs and does not have; opens no URL."""
    if manifest is None or not is_remote(manifest):
        try:
            read_manifest(manifest)
        except UserError as error:
            return [str(error)]
    problems = []
    for url in expand_urls(shards):
        if not is_remote(url):
            problems += [] if Path(url).exists() else [f"{url} is missing: check the shard paths"]
        elif url_scheme(url) != "pipe":
            try:
                check_url(url)
            except UserError as error:
                problems.append(str(error))
    return problems
