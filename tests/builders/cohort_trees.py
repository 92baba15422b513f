"""Small trees of images with tables, for tests of `lightning prepare` (also run by child processes that get killed).

:data:`TREES` has one for each cohort: official names and columns, their ugly rows, and one image whose file is cut off.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from meddiff.common.draws import generator
from meddiff.preparation.cohorts.mimic_files import image_path, is_identifier
from tests.builders import mimic_cxr_tree as mimic
from tests.builders import ms_cxr_tree as ms_cxr
from tests.builders import mscoco_tree as mscoco
from tests.builders import nih_tree as nih
from tests.builders import open_i_tree as open_i
from tests.builders import padchest_gr_tree as padchest
from tests.builders import rsna_tree as rsna
from tests.builders import vindr_cxr_tree as vindr
from tests.builders.dicom_files import write_dicom
from tests.builders.files import cut, listing, write_image, write_table
from tests.builders.folder_tree import make_folder
from tests.builders.torchvision_trees import write_fashion_mnist

__all__ = ["TREES", "cut", "listing", "make_folder", "open_i_tree", "rsna_tree", "write_image", "write_table"]


def mimic_cxr_tree(root: Path) -> list[str]:
    """Thinned in the fidelity set; one image is missing."""
    tree = mimic.ugly_tree()
    tree.write(root)
    for one in tree.images:
        ids = str(one["subject_id"]), str(one["study_id"]), str(one["dicom_id"])
        if is_identifier(ids[2], *ids[:2]):
            write_image(root / image_path(*ids), ids[2])
    cut(root / image_path("10000980", "50985099", mimic.dicom_id(8)))
    (root / image_path("10001300", "51000007", mimic.dicom_id(15))).unlink()
    return ["--fidelity", "2", "--no_finding_share", "0.5"]


def ms_cxr_tree(root: Path) -> list[str]:
    """Images of 80 x 72 pixels with their reports."""
    size = {"image_width": 80, "image_height": 72}
    rows = [
        ms_cxr.row(number, "Edema", f"mild edema {number}", (10, 20 + number, 20, 15), **size) for number in range(1, 6)
    ]
    rows += [ms_cxr.row(1, "Pneumonia", "right basal infection", (40, 30, 20, 20), **size), dict(rows[0])]
    rows += [
        ms_cxr.row(2, "Edema", "gone", (90, 20, 20, 20), **size),
        ms_cxr.row(3, "Edema", "", (10, 20, 20, 15), **size),
    ]
    rows += [ms_cxr.row(4, "Edema", "elsewhere", (1, 1, 5, 5), path="../../etc/passwd", **size)]
    ms_cxr.write_csv(root, rows)
    for number in range(1, 6):
        write_image(root / ms_cxr.path_of(number), number)
        ms_cxr.write_report(root, number, f" FINAL REPORT\n IMPRESSION: Mild edema, number {number}.\n")
    cut(root / ms_cxr.path_of(5))
    return []


def mscoco_tree(root: Path) -> list[str]:
    """Both subsets; one image of val2017 is missing."""
    mscoco.train_tree(root, 24)
    for folder, numbers in (("val2017", [139, 285, 1000]), ("train2017", range(2000, 2024))):
        for number in numbers:
            write_image(root / folder / f"{number:012d}.jpg", number, size=(mscoco.WIDTH, mscoco.HEIGHT))
    cut(root / "train2017" / f"{2003:012d}.jpg")
    (root / "val2017" / f"{1000:012d}.jpg").unlink()
    return ["--val_fraction", "0.3"]


def open_i_tree(root: Path) -> list[str]:
    """Packed reports."""
    more = {f"{uid}.xml": f"CXR{uid}_IM-0100-1001" for uid in range(20, 32)}
    reports = {name: open_i.report_xml(image.split("_")[0], "Small left effusion.", ["Pleural Effusion/left"], [image])
               for name, image in more.items()}  # fmt: skip
    open_i.write_reports(root, open_i.REPORTS | reports, packed=True)
    for name in [*open_i.NAMES, *more.values()]:
        write_image(root / "NLMCXR_png" / f"{name}.png", name)
    cut(root / "NLMCXR_png" / "CXR25_IM-0100-1001.png")
    return ["--views", "first"]


def nih_tree(root: Path) -> list[str]:
    """The first release."""
    entries, images = [], {}
    for number in range(1, 13):
        name, folder = f"{number:08d}_000.png", f"images_{1 + number % 2:03d}/images"
        entries.append(nih.entry(name, "No Finding" if number % 3 else "Effusion|Infiltration", old=True))
        images[name] = folder
        write_image(root / folder / name, number, size=(1024, 1024) if number in (3, 6) else (80, 80))
    listed = list(images)
    entries += [
        entries[0],
        nih.entry(f"{13:08d}_000.png", "Unicorn", old=True),
        nih.entry("../x.png", "Edema", "1", old=True),
        nih.entry(f"{14:08d}_000.png", "Edema", old=True),
    ]
    boxes = [f"{listed[2]},Effusion,100.5,200,300,400.25,,,", f"{listed[5]},Infiltrate,600,512,200,300,,,"]
    boxes += [f"{listed[5]},Mass,1,1,0,9,,,", "x.png,Mass,1,1,9,9,,,"]
    nih.write_release(root, entries, boxes, listed[:9], listed[9:], images, old=True)
    cut(root / "images_002/images" / listed[4])
    return []


def vindr_cxr_tree(root: Path) -> list[str]:
    """PhysioNet's layout, DICOM of 12 bits."""
    home = vindr.write_physionet(root, *vindr.TREE)
    for name in ("train/a", "train/b", "train/c", "test/t1", "test/t2"):
        values = generator("tree", name).integers(0, 4096, (72, 80)).astype(np.uint16)
        write_dicom(home / f"{name}.dicom", values, bits=12)
    cut(home / "train/b.dicom")
    return []


def rsna_tree(root: Path) -> list[str]:
    """DICOM of 8 bits."""
    rsna.ugly_tree(root)
    with (root / "stage_2_train_labels.csv").open("a", encoding="utf-8") as labels:
        labels.writelines(f"q-{number},,,,,0\n" for number in range(6))
    with (root / "stage_2_detailed_class_info.csv").open("a", encoding="utf-8") as classes:
        classes.writelines(f"q-{number},Normal\n" for number in range(6))
    for name in ("b-2", *(f"q-{number}" for number in range(6))):
        values = generator("tree", name).integers(0, 256, (72, 80)).astype(np.uint8)
        write_dicom(root / "stage_2_train_images" / f"{name}.dcm", values)
    large = np.asarray(Image.open(write_image(root / "large.png", "a-1", size=(1024, 1024))))
    write_dicom(root / "stage_2_train_images" / "a-1.dcm", large)
    (root / "large.png").unlink()
    cut(root / "stage_2_train_images" / "q-3.dcm")
    return []


def padchest_gr_tree(root: Path) -> list[str]:
    """All splits; an image without a split, one that is missing, a box that is none and a sentence that says nothing."""
    boxes = [[0.1, 0.2, 0.5, 0.6], [0.5, 0.2, 0.5, 0.6]]
    studies = [padchest.study(f"{number}.png", padchest.said(f"Edema {number}.", "pulmonary edema", boxes=boxes),
                              padchest.denied("No effusion."), padchest.denied("")) for number in range(8)]  # fmt: skip
    splits = ("train", "test", "validation", "test")
    rows = [padchest.row(f"{number}.png", splits[number % 4]) for number in range(7)]
    padchest.write_padchest(root, studies, rows)
    cut(root / padchest.FOLDER / "4.png")
    (root / padchest.FOLDER / "5.png").unlink()
    return []


def folder_tree(root: Path) -> list[str]:
    """A table with rows that cannot be used."""
    make_folder(root)
    with (root / "meta.csv").open("a", encoding="utf-8") as table:
        table.write("images/a000.png,again,Edema,p0,train,,\nimages/none.png,,,p90,train,,\n")
        table.write(
            'images/a090.png,"Dichte, \u80ba\u708e, \u00e4rztlich gesehen",Edema,p91,train,,\n,no name,,p92,train,,\n'
        )
    write_image(root / "images/a090.png", 90)
    cut(root / "images/a004.png")
    (root / "images/a013_mask.png").unlink()
    return []


def torchvision_tree(root: Path) -> list[str]:
    """Fashion-MNIST with an image on which there is nothing."""
    write_fashion_mnist(root, black=1)
    return ["--dataset", "fashion_mnist"]


#: Cohort -> writes its tree below a root and returns the options it is read with.
TREES: dict[str, Callable[[Path], list[str]]] = {
    "mimic-cxr": mimic_cxr_tree,
    "ms-cxr": ms_cxr_tree,
    "mscoco": mscoco_tree,
    "open-i": open_i_tree,
    "nih": nih_tree,
    "vindr-cxr": vindr_cxr_tree,
    "rsna": rsna_tree,
    "padchest-gr": padchest_gr_tree,
    "torchvision": torchvision_tree,
    "folder": folder_tree,
}
