"""Small trees of images with tables, for tests of `lightning prepare` (also run by child processes that get killed).

:data:`TREES` has one for each cohort, made by the builders of the readers' tests: official names and columns, their ugly
rows, and one image whose file is cut off.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from meddiff.common.draws import generator
from meddiff.shards.index import CACHE_NAME


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_image(path: Path, *address: object, size: tuple[int, int] = (80, 72)) -> Path:
    """A smooth grey picture of its own, (width, height) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = generator("tree", *address).integers(0, 256, (6, 6)).astype(np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def make_folder(root: Path, train: int = 12, boxed: int = 4) -> Path:
    """A cohort for `prepare folder`: `train` images with texts (every fourth is val), `boxed` with a box and a mask."""
    rows: list[dict[str, Any]] = []
    for number in range(train + boxed):
        name = f"images/a{number:03d}.png"
        write_image(root / name, number)
        rows.append({"image": name, "text": f"text number {number}", "labels": "Edema|Pneumonia" if number % 2 else "Edema",
                     "patient": f"p{number}", "split": "val" if number % 4 == 3 else "train"})  # fmt: skip
        if number >= train:
            mask = np.zeros((72, 80), np.uint8)
            mask[20:40, 30:50] = 1
            Image.fromarray(mask).save(root / "images" / f"a{number:03d}_mask.png")
            box = {"x": 30, "y": 20, "w": 20, "h": 20, "label": "Edema", "phrase": "fluid in the middle"}
            rows[-1] |= {
                "split": "grounding",
                "boxes": json.dumps([box]),
                "masks": f"Edema=images/a{number:03d}_mask.png",
            }
    write_table(root / "meta.csv", ("image", "text", "labels", "patient", "split", "boxes", "masks"), rows)
    return root


def cut(path: Path) -> None:
    """Take the last eighth off a file: its first bytes still say that it is an image."""
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 8])


def listing(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file below, "" for folders; the readers' cache is not a result."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.name != CACHE_NAME}
    return {n: "" if p.is_dir() else hashlib.sha256(p.read_bytes()).hexdigest() for n, p in found.items()}


def mimic_cxr_tree(root: Path) -> list[str]:
    from meddiff.preparation.cohorts.mimic_files import image_path, is_identifier
    from tests.preparation.test_mimic_reader import dicom, ugly

    tree = ugly()
    tree.write(root)
    for one in tree.images:
        ids = one["subject_id"], one["study_id"], one["dicom_id"]
        if is_identifier(ids[2], *ids[:2]):
            write_image(root / image_path(*ids), ids[2])
    cut(root / image_path("10000980", "50985099", dicom(8)))
    (root / image_path("10001300", "51000007", dicom(15))).unlink()
    return ["--fidelity", "2", "--no_finding_share", "0.5"]


def ms_cxr_tree(root: Path) -> list[str]:
    from tests.preparation.test_ms_cxr_reader import path_of, report, row, write

    size = {"image_width": 80, "image_height": 72}
    rows = [row(number, "Edema", f"mild edema {number}", (10, 20 + number, 20, 15), **size) for number in range(1, 6)]
    rows += [row(1, "Pneumonia", "right basal infection", (40, 30, 20, 20), **size), dict(rows[0])]
    rows += [row(2, "Edema", "gone", (90, 20, 20, 20), **size), row(3, "Edema", "", (10, 20, 20, 15), **size)]
    rows += [row(4, "Edema", "elsewhere", (1, 1, 5, 5), path="../../etc/passwd", **size)]
    write(root, rows)
    for number in range(1, 6):
        write_image(root / path_of(number), number)
        report(root, number, f" FINAL REPORT\n IMPRESSION: Mild edema, number {number}.\n")
    cut(root / path_of(5))
    return []


def mscoco_tree(root: Path) -> list[str]:
    from tests.preparation.test_mscoco_reader import HEIGHT, WIDTH, train_tree

    train_tree(root, 24)
    for folder, numbers in (("val2017", [139, 285, 1000]), ("train2017", range(2000, 2024))):
        for number in numbers:
            write_image(root / folder / f"{number:012d}.jpg", number, size=(WIDTH, HEIGHT))
    cut(root / "train2017" / f"{2003:012d}.jpg")
    (root / "val2017" / f"{1000:012d}.jpg").unlink()
    return ["--val_fraction", "0.3"]


def open_i_tree(root: Path) -> list[str]:
    from tests.preparation.test_open_i_reader import NAMES, REPORTS, write_reports, xml

    more = {f"{uid}.xml": f"CXR{uid}_IM-0100-1001" for uid in range(20, 32)}
    reports = {name: xml(image.split("_")[0], "Small left effusion.", ["Pleural Effusion/left"], [image])
               for name, image in more.items()}  # fmt: skip
    write_reports(root, REPORTS | reports, packed=True)
    for name in [*NAMES, *more.values()]:
        write_image(root / "NLMCXR_png" / f"{name}.png", name)
    cut(root / "NLMCXR_png" / "CXR25_IM-0100-1001.png")
    return ["--views", "first"]


def nih_tree(root: Path) -> list[str]:
    entries, listed = [], []
    for number in range(1, 13):
        name, folder = f"{number:08d}_000.png", f"images_{1 + number % 2:03d}/images"
        labels = "No Finding" if number % 3 else "Effusion|Infiltration"
        entries.append(f"{name},{labels},0,{number},058Y,M,PA,1024,1024,0.143,0.143,")
        listed.append(name)
        write_image(root / folder / name, number, size=(1024, 1024) if number in (3, 6) else (80, 80))
    entries += [
        entries[0],
        f"{13:08d}_000.png,Unicorn,0,13,058Y,M,PA,9,9,1,1,",
        "../x.png,Edema,0,1,058Y,M,PA,9,9,1,1,",
    ]
    entries += [f"{14:08d}_000.png,Edema,0,14,058Y,M,PA,9,9,1,1,"]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    (root / "Data_Entry_2017.csv").write_text("\n".join([header, *entries, ""]))
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,", f"{listed[2]},Effusion,100.5,200,300,400.25,,,"]
    boxes += [f"{listed[5]},Infiltrate,600,512,200,300,,,", f"{listed[5]},Mass,1,1,0,9,,,", "x.png,Mass,1,1,9,9,,,"]
    (root / "BBox_List_2017.csv").write_text("\n".join([*boxes, ""]))
    (root / "train_val_list.txt").write_text("\n".join(listed[:9]))
    (root / "test_list.txt").write_text("\n".join(listed[9:]))
    cut(root / "images_002/images" / listed[4])
    return []


def vindr_cxr_tree(root: Path) -> list[str]:
    from tests.preparation.test_stored_images import dicom
    from tests.preparation.test_vindr_reader import TREE, physionet

    home = physionet(root, *TREE)
    for name in ("train/a", "train/b", "train/c", "test/t1", "test/t2"):
        values = generator("tree", name).integers(0, 4096, (72, 80)).astype(np.uint16)
        dicom(home / f"{name}.dicom", values, bits=12)
    cut(home / "train/b.dicom")
    return []


def rsna_tree(root: Path) -> list[str]:
    from tests.preparation.test_rsna_reader import tree
    from tests.preparation.test_stored_images import dicom

    tree(root)
    with (root / "stage_2_train_labels.csv").open("a") as labels:
        labels.writelines(f"q-{number},,,,,0\n" for number in range(6))
    with (root / "stage_2_detailed_class_info.csv").open("a") as classes:
        classes.writelines(f"q-{number},Normal\n" for number in range(6))
    for name in ("b-2", *(f"q-{number}" for number in range(6))):
        values = generator("tree", name).integers(0, 256, (72, 80)).astype(np.uint8)
        dicom(root / "stage_2_train_images" / f"{name}.dcm", values)
    large = np.asarray(Image.open(write_image(root / "large.png", "a-1", size=(1024, 1024))))
    dicom(root / "stage_2_train_images" / "a-1.dcm", large)
    (root / "large.png").unlink()
    cut(root / "stage_2_train_images" / "q-3.dcm")
    return []


def folder_tree(root: Path) -> list[str]:
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


#: Cohort -> writes its tree below a root and returns the options it is read with.
TREES: dict[str, Callable[[Path], list[str]]] = {
    "mimic-cxr": mimic_cxr_tree,
    "ms-cxr": ms_cxr_tree,
    "mscoco": mscoco_tree,
    "open-i": open_i_tree,
    "nih": nih_tree,
    "vindr-cxr": vindr_cxr_tree,
    "rsna": rsna_tree,
    "folder": folder_tree,
}
