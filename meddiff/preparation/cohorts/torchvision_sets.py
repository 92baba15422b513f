"""Natural images as torchvision reads them, never downloaded: CelebA, CIFAR-10 and Fashion-MNIST.

Splits are the published ones. The selection of hair and smile is the published shortcut of Patronus
(spec/patronus_and_visual_analysis.md A7.8): of images with exactly one of black, blond and brown hair (115,309 of 202,599) the
biased set, blond (16,916) or brown (19,618) with a smile and black (24,680) without. Source: the data sets' own files, through
``torchvision.datasets``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.preparation.records import Funnel, Reading, Record, Rejected

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10, CelebA, FashionMNIST

    ClassSet: TypeAlias = CIFAR10 | FashionMNIST

Dataset = Literal["celeba", "cifar10", "fashion_mnist"]
#: As published: 64 px for faces, 32 px for the small ones.
SIDES: Mapping[Dataset, int] = {"celeba": 64, "cifar10": 32, "fashion_mnist": 32}
HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair")
SMILE = "Smiling"
ONE_HAIR = "exactly one of black, blond and brown hair"
BIASED = "blond or brown hair with a smile, black without"
_SPLITS = {"train": "train", "valid": "val", "test": "test"}
#: Where torchvision looks below the root.
_FOLDERS: Mapping[Dataset, str] = {
    "celeba": "celeba (img_align_celeba/ and the five list_*.txt and identity_CelebA.txt)",
    "cifar10": "cifar-10-batches-py",
    "fashion_mnist": "FashionMNIST/raw",
}


@dataclass(frozen=True)
class TorchvisionOptions:
    """Which data set."""

    dataset: Dataset = "celeba"
    """celeba, cifar10 or fashion_mnist."""
    selection: Literal["all", "one_hair", "hair_smile"] = "all"
    """Of CelebA: one_hair keeps exactly one of black, blond and brown hair; hair_smile of these the published biased set."""

    def __post_init__(self) -> None:
        if self.selection != "all" and self.dataset != "celeba":
            raise UserError(f"selection {self.selection} is one of CelebA's images: leave it out for {self.dataset}.")


@dataclass
class Arrays:
    """Pictures of a data set that keeps them in archives; opened once in each process.

    Attributes:
        root: torchvision's.
        dataset: its name.
    """

    root: Path
    dataset: Dataset
    _open: dict[bool, NDArray[np.uint8]] = field(default_factory=dict)

    def __call__(self, record: Record) -> NDArray[np.uint8]:
        """uint8 (H, W) or (H, W, 3)."""
        train = bool(record.split == "train")
        if train not in self._open:
            data = _class_set(self.root, self.dataset, train).data
            self._open[train] = np.asarray(data, np.uint8)
        return np.ascontiguousarray(self._open[train][int(record.attributes["index"])])

    def __getstate__(self) -> dict[str, object]:
        return {"root": self.root, "dataset": self.dataset, "_open": {}}


def hair_smile(attributes: Mapping[str, int]) -> tuple[bool, bool]:
    """Whether an image has exactly one of the three colours of hair, and whether it is in the published biased set.

    Example:
        >>> hair_smile({"Black_Hair": 0, "Blond_Hair": 1, "Brown_Hair": 0, "Smiling": 1})
        (True, True)
        >>> hair_smile({"Black_Hair": 1, "Blond_Hair": 0, "Brown_Hair": 0, "Smiling": 1})
        (True, False)
    """
    one = sum(attributes[name] for name in HAIR) == 1
    return one, one and bool(attributes[SMILE]) != bool(attributes[HAIR[0]])


def read(root: Path, options: TorchvisionOptions) -> Reading:
    """Read labels; pictures of CelebA are files, the others' come out of their archives when they are asked for.

    Raises:
        UserError: the files are not there, or not what was published (torchvision compares check sums).
    """
    if options.dataset == "celeba":
        return _celeba(root, options)
    records = []
    for train, split in ((True, "train"), (False, "test")):
        data = _class_set(root, options.dataset, train)
        for index, number in enumerate(np.asarray(data.targets).tolist()):
            name = str(data.classes[number])
            key = f"{options.dataset}-{split}-{index:05d}"
            attributes = {"index": index, "class": number}
            records.append(
                Record(key, _archive(options.dataset, train, index), split, key, name, (name,), attributes=attributes)
            )
    funnel = Funnel()
    funnel.start(len(records))
    told = {**asdict(options), "classes": [str(name) for name in data.classes]}
    return Reading(options.dataset, root, records, funnel, [], told, pictures=Arrays(root, options.dataset))


def _archive(dataset: Dataset, train: bool, index: int) -> str:
    """Below the root, the file that a picture lies in."""
    if dataset == "fashion_mnist":
        return f"{_FOLDERS[dataset]}/{'train' if train else 't10k'}-images-idx3-ubyte"
    return f"{_FOLDERS[dataset]}/{f'data_batch_{min(index // 10_000, 4) + 1}' if train else 'test_batch'}"


def _celeba(root: Path, options: TorchvisionOptions) -> Reading:
    records, rejected = [], []
    read_ones = one_hair = 0
    for name, split in _SPLITS.items():
        data = _open_celeba(root, name)
        names = [one for one in data.attr_names if one]  # the header ends with a blank
        if lost := [one for one in (*HAIR, SMILE) if one not in names]:
            raise UserError(f"list_attr_celeba.txt below {root} lacks {', '.join(lost)}: fetch it again.")
        for file, identity, row in zip(data.filename, data.identity[:, 0].tolist(), data.attr.tolist(), strict=True):
            attributes = dict(zip(names, row, strict=True))
            read_ones += 1
            one, biased = hair_smile(attributes)
            one_hair += one
            path = f"{data.base_folder}/img_align_celeba/{file}"
            if options.selection != "all" and not one:
                rejected.append(Rejected(path, ONE_HAIR))
            elif options.selection == "hair_smile" and not biased:
                rejected.append(Rejected(path, BIASED))
            else:
                labels = tuple(label for label in names if attributes[label])
                text = ", ".join(label.replace("_", " ").lower() for label in labels)
                key = "celeba-" + Path(file).stem
                records.append(Record(key, path, split, str(identity), text, labels, attributes=attributes))
    funnel = Funnel()
    funnel.start(read_ones)
    if options.selection != "all":
        funnel.keep(ONE_HAIR, one_hair)
    if options.selection == "hair_smile":
        funnel.keep(BIASED, len(records))
    return Reading("celeba", root, records, funnel, rejected, {**asdict(options), "groups": groups(records)})


def groups(records: Sequence[Record]) -> dict[str, int]:
    """How many images have each colour of hair alone, with and without a smile.

    Example:
        >>> face = {"Black_Hair": 1, "Blond_Hair": 0, "Brown_Hair": 0, "Smiling": 0}
        >>> groups([Record("a", "a.jpg", "train", "p", "", (), attributes=face)])
        {'Black_Hair without Smiling': 1}
    """
    counted: dict[str, int] = {}
    for record in records:
        colours = [name for name in HAIR if record.attributes[name]]
        if len(colours) == 1:
            name = f"{colours[0]} {'and' if record.attributes[SMILE] else 'without'} {SMILE}"
            counted[name] = counted.get(name, 0) + 1
    return dict(sorted(counted.items()))


def _open_celeba(root: Path, split: str) -> "CelebA":
    from torchvision.datasets import CelebA

    try:
        return CelebA(str(root), split, ["attr", "identity"], download=False)
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        raise _missing(root, "celeba", error) from None


def _class_set(root: Path, dataset: Dataset, train: bool) -> "ClassSet":
    from torchvision.datasets import CIFAR10, FashionMNIST

    kind = {"cifar10": CIFAR10, "fashion_mnist": FashionMNIST}[dataset]
    try:
        return cast("ClassSet", kind(str(root), train, download=False))
    except (RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
        raise _missing(root, dataset, error) from None


def _missing(root: Path, dataset: Dataset, error: Exception) -> UserError:
    reason = str(error).split(". You can use")[0]
    return UserError(
        f"{root} holds no {dataset} that is whole ({reason}): torchvision looks for {_FOLDERS[dataset]} there, and nothing is "
        "downloaded here; fetch it first."
    )
