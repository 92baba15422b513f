"""Readers of cohorts by name; a reader's module is imported when it is asked for."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from meddiff.common.errors import UserError

if TYPE_CHECKING:
    from meddiff.preparation.records import Reading


class Entry(NamedTuple):
    """Where a reader is: its module in this package, its options class there, and a line of help."""

    module: str
    options: str
    help: str


COHORTS = {
    "mimic-cxr": Entry(
        "mimic_cxr", "MimicCxrOptions", "MIMIC-CXR-JPG with reports: training, validation, p19 (credentialed)"
    ),
    "ms-cxr": Entry("ms_cxr", "MsCxrOptions", "MS-CXR: phrases with boxes on MIMIC-CXR images (credentialed)"),
    "mscoco": Entry("mscoco", "MscocoOptions", "MS-COCO 2017: captions and instance masks"),
    "open-i": Entry("open_i", "OpenIOptions", "Open-I: chest X-rays with reports (public)"),
    "nih": Entry("nih", "NihOptions", "NIH ChestX-ray14: labels, boxes of BBox_List_2017 (public)"),
    "vindr-cxr": Entry("vindr_cxr", "VindrCxrOptions", "VinDr-CXR: boxes of radiologists (PhysioNet or Kaggle)"),
    "rsna": Entry("rsna", "RsnaOptions", "RSNA Pneumonia Detection Challenge: boxes of opacities (Kaggle)"),
    "padchest-gr": Entry(
        "padchest_gr", "PadchestGrOptions", "PadChest-GR: sentences with boxes of two readers, and denials (on request)"
    ),
    "torchvision": Entry(
        "torchvision_sets",
        "TorchvisionOptions",
        "CelebA, CIFAR-10 or Fashion-MNIST as torchvision reads them, not downloaded",
    ),
    "folder": Entry(
        "folder", "FolderOptions", "any folder of images with a CSV or JSONL of texts, labels, boxes, masks"
    ),
}


def reader(name: str) -> tuple[Callable[..., "Reading"], type]:
    """``read`` and the options class of a cohort.

    Raises:
        UserError: no such cohort.
    """
    if name not in COHORTS:
        raise UserError(f"No cohort {name!r}: there are {', '.join(COHORTS)}.")
    entry = COHORTS[name]
    module = import_module(f"{__name__}.{entry.module}")
    return module.read, getattr(module, entry.options)
