"""VinDr-CXR in both layouts, with the official names and columns."""

import gzip
from collections.abc import Sequence
from pathlib import Path

from tests.builders.files import write_lines

KAGGLE = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
BOXES = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
LABELS = "image_id,rad_id,Cardiomegaly,Lung tumor,Pneumonia,Tuberculosis,Other diseases,No finding"


def write_kaggle(root: Path, *rows: str) -> Path:
    """train.csv with ``rows`` and an empty folder train below ``root``, which is returned."""
    write_lines(root / "train.csv", KAGGLE, *rows)
    (root / "train").mkdir(exist_ok=True)
    return root


def write_physionet(
    root: Path, labels: Sequence[str], test_labels: Sequence[str], train: Sequence[str], test: Sequence[str]
) -> Path:
    """vindr-cxr/1.0.0 below the root, as wget mirrors it, one file compressed; returns that folder.

    Args:
        labels, test_labels: rows of the labels of images; train, test: rows of boxes. Those of the test set name no reader.
    """
    home = root / "vindr-cxr" / "1.0.0"
    for folder in ("annotations", "train", "test"):
        (home / folder).mkdir(parents=True)
    write_lines(home / "annotations" / "image_labels_train.csv", LABELS, *labels)
    write_lines(
        home / "annotations" / "image_labels_test.csv",
        LABELS.replace("rad_id,", "").replace("Other diseases", "Other disease"),
        *test_labels,
    )
    packed = gzip.compress("\n".join([BOXES, *train, ""]).encode())
    (home / "annotations" / "annotations_train.csv.gz").write_bytes(packed)
    write_lines(home / "annotations" / "annotations_test.csv", BOXES.replace("rad_id,", ""), *test)
    return home


#: Arguments of :func:`write_physionet`: five images of train, three of test.
TREE = (
    ["a,R1,1,0,1,0,0,0", "a,R2,0,0,1,0,0,0", "b,R1,0,0,1,0,0,0", "b,R2,0,0,0,0,0,1", "c,R1,0,0,0,0,0,1",
     "d,R1,0,1,0,0,0,0", "../e,R1,0,0,1,0,0,0"],
    ["t1,1,0,0,0,0,0", "t2,0,0,0,0,0,1", "t3,0,0,0,0,1,0"],
    ["a,R1,Cardiomegaly,1,2,11,12", "b,R2,No finding,,,,", "c,R1,No finding,,,,"],
    ["t1,Cardiomegaly,5,5,9,10", "t2,No finding,,,,"],
)  # fmt: skip
