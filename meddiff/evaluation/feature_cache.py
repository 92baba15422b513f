"""Features of real images, and of latents through the autoencoder, computed once for all evaluations of a cohort.

Features and not their moments are kept: the kernel distance needs them, and mean and covariance are seconds away.
Source: own.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from meddiff.common.files import atomic_open
from meddiff.common.progress import progress_bar
from meddiff.evaluation.cores import READING, over_cores
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import image_tensor
from meddiff.metrics.functional.copies import BORDER, SIDE, pixel_grid
from meddiff.models.feature_extractors import Extractor, build_extractor, extractor_identity
from meddiff.shards.dataset import LatentShardsDataset

FOLDER = ".statistics"
VERSION = 1
#: Name of the features that need no weights: the grid that copies are looked for on.
PIXELS = "pixels"
#: Images that a core of a CPU looks at at once: the activations of more leave its cache.
CPU_LOOKS = 8
#: Everything that changes features; JSON values.
Address = dict[str, object]
#: extractor -> (N, D) on the CPU.
Features = dict[str, Tensor]
#: Indices of images -> (B, 3, H, W) in [-1, 1].
Images = Callable[[Sequence[int]], Tensor]


@dataclass(frozen=True)
class Source:
    """Where images come from that are not the stored ones.

    Attributes:
        images: makes them.
        made_from: all that decides them beside the stored sample; JSON values.
    """

    images: Images
    made_from: Mapping[str, str]


def cache_folder(shards: Path, out: Path) -> Path:
    """``SHARDS/.statistics`` where it can be written, so that all runs share it, else ``OUT/.statistics``."""
    folder = shards / FOLDER
    if folder.is_symlink():  # shards made by others must not lead writing elsewhere
        return out / FOLDER
    try:
        with atomic_open(folder / ".probe"):
            pass
        (folder / ".probe").unlink()
    except OSError:
        return out / FOLDER
    return folder


def features_address(
    dataset: LatentShardsDataset, indices: Sequence[int], identity: Mapping[str, str | int], device: torch.device
) -> Address:
    """Everything that changes the features of these images.

    Args:
        identity: of the extractor, from `meddiff.models.feature_extractors.extractor_identity`.
        device: CPU and GPU round differently.
    """
    return {
        "cache": VERSION,
        "shards": [[shard.name, shard.sha256] for shard in dataset.manifest.split(dataset.split)],
        "split": dataset.split,
        "indices": hashlib.sha256(json.dumps(list(indices)).encode()).hexdigest(),
        "images": len(indices),
        **({"part": dataset.part} if dataset.part else {}),  # numbers in a part are not those in the whole
        "resolution": dataset.manifest.resolution,
        "device": device.type,
        "torch": ".".join(torch.__version__.split(".")[:2]),
        **identity,
    }


def address_file(folder: Path, address: Address) -> Path:
    """The file of an address."""
    digest = hashlib.sha256(json.dumps(address, sort_keys=True).encode()).hexdigest()
    return folder / f"{address['extractor']}-{digest[:24]}.safetensors"


def read_features(folder: Path, address: Address) -> Tensor | None:
    """Stored features (N, D) float32, or None; a file that is not whole is warned of and counts as none."""
    path = address_file(folder, address)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata, features = stored.metadata() or {}, stored.get_tensor("features")
    except (SafetensorError, OSError) as error:
        warnings.warn(f"{path} is damaged ({error}); its features are computed again.", stacklevel=2)
        return None
    if metadata.get("sha256") != _digest(features):
        warnings.warn(f"{path} is damaged (its checksum differs); its features are computed again.", stacklevel=2)
        return None
    return features


def write_features(folder: Path, address: Address, features: Tensor) -> None:
    """Store features whole or not at all; a folder that cannot be written to is warned of."""
    features = features.contiguous()
    metadata = {"address": json.dumps(address, sort_keys=True), "sha256": _digest(features)}
    try:
        with atomic_open(address_file(folder, address)) as stream:
            stream.write(save({"features": features}, metadata))
    except OSError as error:
        warnings.warn(f"Features are not kept: {folder} cannot be written to ({error.strerror}).", stacklevel=2)


def _digest(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().tobytes()).hexdigest()


def measure(
    extractors: Mapping[str, Extractor],
    images: Images,
    indices: Sequence[int],
    device: torch.device,
    batch_size: int,
    title: str,
    show_progress: bool = False,
) -> Features:
    """Features of the images ``indices`` in one pass over them: extractor -> (N, D) float32 on the CPU."""

    def look(part: Sequence[int]) -> Features:
        batch = images(part).to(device)  # (B, 3, H, W)
        found = {name: extract(batch).float().cpu() for name, extract in extractors.items()}
        bar.update(len(part))
        return found

    size = min(batch_size, CPU_LOOKS) if device.type == "cpu" else batch_size
    with progress_bar(len(indices), "image", f"features of {title}", show_progress) as bar:
        parts = list(over_cores(look, indices, size, device))
    return {name: torch.cat([part[name] for part in parts]) if parts else torch.empty(0) for name in extractors}


def stored_images(dataset: LatentShardsDataset) -> Images:
    """The cohort's own images."""

    def images(indices: Sequence[int]) -> Tensor:
        with READING:
            return torch.stack([image_tensor(dataset, i) for i in indices])

    return images


def real_features(
    dataset: LatentShardsDataset,
    indices: Sequence[int],
    weights: Mapping[str, str],
    extractors: Mapping[str, Extractor],
    device: torch.device,
    batch_size: int,
    folder: Path | None,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen dataclass)
    before: int = 0,
    show_progress: bool = False,
    source: Source | None = None,
) -> Features:
    """Features of this rank's share of real images, from ``folder`` where all are known: extractor -> (N, D) float32.

    One rank alone keeps what it computes; of several somebody has to, once all is gathered (:func:`keep_features`).

    Args:
        indices: all images of the set; they decide under which address features are kept.
        weights: extractor -> its weights, for the address.
        extractors: the same, built.
        folder: None keeps nothing and knows nothing.
        before: as :meth:`meddiff.evaluation.ranks.Ranks.share`.
        source: of the images; None takes those that are stored.
    """
    found: Features = {}
    place = {index: k for k, index in enumerate(indices)}
    mine = ranks.share(indices, before)
    for name, path in weights.items():
        stored = (
            None if folder is None else read_features(folder, _address(dataset, indices, name, path, device, source))
        )
        if stored is not None:
            found[name] = stored[[place[index] for index in mine]]
    missing = {name: extractors[name] for name in weights if name not in found}
    if missing:
        images = stored_images(dataset) if source is None else source.images
        made = measure(missing, images, mine, device, batch_size, "real images", show_progress)
        if folder is not None and ranks.world == 1:
            for name, features in made.items():
                write_features(folder, _address(dataset, indices, name, weights[name], device, source), features)
        found |= made
    return {name: found[name] for name in weights}


def keep_features(
    dataset: LatentShardsDataset,
    indices: Sequence[int],
    weights: Mapping[str, str],
    device: torch.device,
    folder: Path,
    features: Features,
    source: Source | None = None,
) -> None:
    """Store the features of all of ``indices`` where ``folder`` has none of them."""
    for name, path in weights.items():
        address = _address(dataset, indices, name, path, device, source)
        if read_features(folder, address) is None:
            write_features(folder, address, features[name])


def _address(
    dataset: LatentShardsDataset,
    indices: Sequence[int],
    name: str,
    path: str,
    device: torch.device,
    source: Source | None = None,
) -> Address:
    pixels: dict[str, str | int] = {"extractor": PIXELS, "version": 1, "side": SIDE, "border": BORDER}
    identity = pixels if name == PIXELS else extractor_identity(name, path)
    return {**features_address(dataset, indices, identity, device), **(source.made_from if source is not None else {})}


def looks(weights: Mapping[str, str], device: torch.device) -> dict[str, Extractor]:
    """The extractors of ``weights``; :data:`PIXELS` needs none."""
    return {
        name: pixel_grid if name == PIXELS else build_extractor(name, path, device) for name, path in weights.items()
    }
