"""A real cohort as latent shards: read the tables, check, read and encode the images, say what happened. Source: own."""

import csv
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.common.locks import locked
from meddiff.common.outside import terminal
from meddiff.common.processes import is_first_process
from meddiff.common.progress import progress_bar
from meddiff.common.ranges import check_finite_fields
from meddiff.preparation.cohorts import reader
from meddiff.preparation.encode import shard_header
from meddiff.preparation.geometry import resize_rule
from meddiff.preparation.images import probe
from meddiff.preparation.jobs import plan_jobs
from meddiff.preparation.oddities import find_oddities, foresee, print_oddities
from meddiff.preparation.pool import write_jobs
from meddiff.preparation.preview import choose, write_preview
from meddiff.preparation.reading_checks import check_reading, limit_reading, print_funnel, refuse_links_out
from meddiff.preparation.record_images import RecordImages
from meddiff.preparation.record_sources import RecordSources
from meddiff.preparation.records import Reading, Record, Rejected
from meddiff.preparation.safe_files import inside
from meddiff.preparation.wide_posteriors import print_wide_posteriors
from meddiff.shards.access import Access
from meddiff.shards.manifest import MANIFEST_NAME, Manifest, ShardRecord
from meddiff.shards.members import IMAGE_SPLITS
from meddiff.shards.sample import CohortSample
from meddiff.shards.stored import Store
from meddiff.shards.writer import ShardWriter

REJECTED, PREVIEW = "rejected.csv", "preview.png"
#: Samples a shard has; fewer in a small cohort, so that several processes share it (:func:`shard_size`).
SAMPLES_PER_SHARD, SMALL_SHARD, SHARDS = 256, 16, 16
UNREADABLE = "unreadable image"


@dataclass(frozen=True)
class Machine:
    """What encodes: a pool of processes where there is no GPU, else Lightning on all GPUs."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes GPUs where there are any."""
    processes: int | None = None
    """Worker processes without a GPU; null means one a core."""
    devices: int | None = None
    """GPUs on a node, null means all; with --accelerator cpu, Lightning processes instead of the pool."""
    num_nodes: int = 1
    """Nodes, with a launcher that starts this command on each (SLURM, torchrun) and a folder they share."""

    def __post_init__(self) -> None:
        for name in ("processes", "devices", "num_nodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}: give 1 or more.")

    @property
    def lightning(self) -> bool:
        """Whether Lightning runs the work."""
        import torch

        gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        return gpu or self.devices is not None or self.num_nodes > 1


def read_cohort(name: str, root: str | Path, options: object = None, limit: int | None = None) -> Reading:
    """Read a cohort's tables and check what its reader promises.

    Args:
        options: of the reader; None = its defaults.
        limit: at most so many images of each split, the first by key.

    Raises:
        UserError: no such folder, a missing or damaged table, no image left, a key twice, a patient in two splits.
    """
    read, options_class = reader(name)
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}: give --root the folder of the downloaded cohort.")
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}: give 1 or more images a split.")
    check_finite_fields(name, options)
    reading = read(root, options if options is not None else options_class())
    reading.records.sort(key=lambda record: record.key)
    check_reading(reading)
    if limit is not None:
        limit_reading(reading, limit)
    return reading


def check_output(out: str | Path, cohort: str, vae: str, resolution: int, store: Store = "latents") -> None:
    """Refuse what can be refused before the tables are read, which takes minutes for a large cohort.

    Raises:
        UserError: no VAE, a resolution that does not fit it, or ``out`` holds another cohort.
    """
    shard_header(cohort, "", {}, vae, resolution, resize_rule(resolution), store=store)
    if (Path(out) / MANIFEST_NAME).is_file() and (found := Manifest.read(out).cohort) != cohort:
        raise UserError(f"{out} already holds the cohort {found}: choose another --out or remove it.")


def dry_run(reading: Reading) -> None:
    """Print the funnel; of images only the first bytes are looked at, and nothing is written.

    Raises:
        UserError: an image is a link that leads out of the root.
    """
    refuse_links_out(reading)
    reasons: dict[str, str] = {}
    boxed: list[tuple[Record, tuple[int, int]]] = []
    files = reading.records if reading.pictures is None else []
    with progress_bar(len(files), "img", "dry run") as bar:
        for record in files:
            found = _probe(reading.root, record)
            if isinstance(found, str):
                reasons[record.path] = found
            else:
                boxed.append((record, found))
            bar.update()
    left = len(reading.records) - len(reasons)
    reading.funnel.keep(f"{UNREADABLE} (missing, or no image by its first bytes)", left)
    print_funnel([*reading.funnel.rows(), ("written (with a dry run: nothing)", left, 0)])
    for path, reason in list(reasons.items())[:3]:
        print(terminal(f"unreadable: {path}: {reason}"))
    splits: dict[str, int] = {}
    for record in reading.records:
        splits[record.split] = splits.get(record.split, 0) + (record.path not in reasons)
    print("  ".join(f"{split} {number}" for split, number in sorted(splits.items())))
    print_oddities(foresee(boxed))


def _probe(root: Path, record: Record) -> tuple[int, int] | str:
    """(width, height) of a record's image, or why it or one of its masks is certainly unreadable."""
    size = probe(inside(root, record.path))
    if isinstance(size, str) or record.split not in IMAGE_SPLITS:
        return size
    for path in record.attributes.get("mask_files", {}).values():
        mask = probe(inside(root, path))
        if mask != size:
            return f"mask {path}: {mask if isinstance(mask, str) else f'{mask[0]} x {mask[1]} pixels'}"
    return size


def prepare_reading(
    reading: Reading,
    out: str | Path,
    vae: str,
    resolution: int = 512,
    machine: Machine | None = None,
    command: str = "",
    samples_per_shard: int | None = None,
    show_progress: bool = True,
    access: Access | None = None,
    store: Store = "latents",
) -> Manifest | None:
    """Write shards, ``rejected.csv``, ``preview.png`` and ``manifest.json``; goes on where a killed call stopped.

    Args:
        samples_per_shard: None = :func:`shard_size`.
        access: whether pictures and texts may leave the machine; None as the cohort's name says.
        store: latents, images of every split (without a VAE), or both.

    Returns:
        the manifest; None in all processes but one, where Lightning runs several.

    Raises:
        UserError: no VAE, ``out`` holds other shards, a full disk, no readable image at all, an image that is a link out
            of the root.
    """
    out, machine = Path(out), machine or Machine()
    refuse_links_out(reading)
    about = (reading.cohort, command, reading.options, vae, resolution, resize_rule(resolution))
    header = shard_header(*about, access, store)
    with locked(out, f"prepare {reading.cohort}", wait=True) if is_first_process() else nullcontext():
        return _write(reading, out, header, machine, samples_per_shard, show_progress)


def _write(
    reading: Reading,
    out: Path,
    header: Manifest,
    machine: Machine,
    samples_per_shard: int | None,
    show_progress: bool,
) -> Manifest | None:
    try:
        writer = ShardWriter(out, header, samples_per_shard or shard_size(len(reading.records)))
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror or error}): choose another --out.") from error
    items: dict[str, dict[str, Record]] = {}
    for record in reading.records:
        items.setdefault(record.split, {})[record.key] = record
    plans, jobs = plan_jobs(writer, items, RecordSources(reading.root))
    source = RecordImages(reading.root, header.resolution, reading.native_masks, reading.pictures, reading.window)
    make_source = partial(_same, source)
    if machine.lightning and jobs:
        from meddiff.preparation.predict import predict_jobs

        devices = machine.devices or "auto"
        if not predict_jobs(make_source, jobs, writer, machine.accelerator, devices, machine.num_nodes, show_progress):
            return None
    else:
        write_jobs(make_source, jobs, writer, machine.processes, show_progress, len(reading.records))
    shards = writer.collect(plans)
    lost, odd = _unreadable(reading.records, shards), find_oddities(out, shards)
    written = len(reading.records) - len(lost)
    gone = {key for shard in shards for key in shard.unreadable}
    try:
        write_rejected(out / REJECTED, [*reading.rejected, *lost, *odd.lines])
        write_preview(out / PREVIEW, choose([one for one in reading.records if one.key not in gone]), source)
    except OSError as error:
        raise UserError(
            f"cannot write to {out} ({error.strerror or error}): make room and run the same command again."
        ) from error
    if not written:
        raise UserError(
            f"{reading.cohort}: none of the {len(lost)} images below {reading.root} can be read "
            f"({lost[0].item}: {lost[0].detail}); check --root."
        )
    funnel = [*reading.funnel.rows(), (UNREADABLE, written, len(lost)), ("written", written, 0)]
    print_oddities(odd)
    manifest = writer.finish(plans, funnel)
    print_wide_posteriors(out, manifest)
    return manifest


def shard_size(images: int) -> int:
    """Samples of a shard: of the cohort's size alone, never of the machine."""
    return min(SAMPLES_PER_SHARD, max(SMALL_SHARD, images // SHARDS))


def _same(source: RecordImages) -> Callable[[Record], CohortSample]:
    return source


def _unreadable(records: Sequence[Record], shards: Sequence[ShardRecord]) -> list[Rejected]:
    reasons = {key: reason for shard in shards for key, reason in shard.unreadable.items()}
    return [Rejected(one.path, UNREADABLE, reasons[one.key]) for one in records if one.key in reasons]


def write_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """``rejected.csv``: item, rule, detail; in the order of the rules."""
    with atomic_open(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("item", "rule", "detail"))
        writer.writerows((one.item, one.rule, " ".join(one.detail.split())) for one in rejected)
