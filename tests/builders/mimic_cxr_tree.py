"""MIMIC-CXR-JPG downloads with the official names, columns and compression. Every patient and every report is made up."""

import zipfile
from pathlib import Path

from tests.builders.files import write_table

METADATA = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
    "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
MS_CXR = ("category_name", "label_text", "path", "dicom_id", "x", "y", "w", "h", "image_width", "image_height")


def dicom_id(number: int) -> str:
    """Five groups of eight hexadecimal digits, as MIMIC-CXR writes them."""
    return "-".join(f"{number * 7 + group:08x}" for group in range(5))


class MimicTree:
    """A small download: add images, then ``write``.

    Attributes:
        images: rows of the metadata; splits: rows of the split file; phrases: rows of MS-CXR.
        labels: study -> its row of both labelers' files; reports: path -> text.
    """

    def __init__(self) -> None:
        self.images: list[dict[str, str | int]] = []
        self.splits: list[dict[str, str]] = []
        self.labels: dict[str, dict[str, str]] = {}
        self.reports: dict[str, str] = {}
        self.phrases: list[dict[str, str | int]] = []

    def add(
        self,
        number: int,
        patient: int,
        study: int,
        view: str = "PA",
        split: str = "train",
        report: str | None = " FINAL REPORT\n IMPRESSION:\n\n No acute\n disease.\n",
        **labels: str,
    ) -> None:
        """An image with its study; ``labels`` as the labelers write them, blanks of their names as underscores."""
        ids = {"dicom_id": dicom_id(number), "subject_id": str(patient), "study_id": str(study)}
        self.images.append({**ids, "ViewPosition": view, "Rows": 3056, "Columns": 2544, "StudyDate": 21800506})
        if split:
            self.splits.append({**ids, "split": split})
        row = self.labels.setdefault(str(study), dict(ids))
        row.update({name.replace("_", " "): value for name, value in labels.items()})
        if report is not None:
            self.reports[f"files/p{str(patient)[:2]}/p{patient}/s{study}.txt"] = report

    def hold_out(self, number: int) -> None:
        """Put an image into MS-CXR."""
        one = next(image for image in self.images if image["dicom_id"] == dicom_id(number))
        patient, study = str(one["subject_id"]), one["study_id"]
        path = f"files/p{patient[:2]}/p{patient}/s{study}/{dicom_id(number)}.jpg"
        box = dict.fromkeys(("x", "y", "w", "h"), 5) | {"image_width": 2544, "image_height": 3056}
        self.phrases.append(
            {"category_name": "Edema", "label_text": "edema", "path": path, "dicom_id": dicom_id(number), **box}
        )

    def write(self, root: Path, gz: str = ".gz", folder: str = "", zipped: bool = True) -> Path:
        """All tables and reports below ``root``, which is returned; no image.

        Args:
            gz: what ends the names of the tables, ".gz" or "".
            folder: of the tables below the root.
            zipped: the reports as one archive, or as PhysioNet's folders.
        """
        jpg = root / folder
        write_table(jpg / f"mimic-cxr-2.0.0-metadata.csv{gz}", METADATA, self.images)
        write_table(
            jpg / f"mimic-cxr-2.0.0-split.csv{gz}", ("dicom_id", "study_id", "subject_id", "split"), self.splits
        )
        for labeler in ("chexpert", "negbio"):
            rows = [{key: value for key, value in row.items() if key != "dicom_id"} for row in self.labels.values()]
            write_table(jpg / f"mimic-cxr-2.0.0-{labeler}.csv{gz}", ("subject_id", "study_id", *LABELS), rows)
        write_table(root / "MS_CXR_Local_Alignment_v1.0.0.csv", MS_CXR, self.phrases)
        if zipped:
            with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, text in self.reports.items():
                    archive.writestr(name, text)
        else:
            for name, text in self.reports.items():
                path = root / "mimic-cxr" / "2.1.0" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        return root


def ugly_tree() -> MimicTree:
    """One image for each thing that can happen."""
    tree = MimicTree()
    tree.add(1, 10000032, 50414267, Edema="1.0", Pneumonia="-1.0", Fracture="1.0")
    tree.add(2, 10000032, 50414267, view="LATERAL")
    tree.add(3, 10000032, 53189527, view="AP", No_Finding="1.0")
    tree.add(4, 10000764, 57375967, view="")
    tree.add(5, 10000898, 50771383, report=None)
    tree.add(6, 10000935, 51178377, report=" FINAL REPORT\n FINDINGS: Clear.\n")
    tree.add(7, 10000935, 50578979, report="IMPRESSION: Normal.")  # 7 characters
    tree.add(8, 10000980, 50985099, report="IMPRESSION: Normal..")  # 8 characters
    tree.add(9, 10001038, 51000001, split="validate", Lung_Opacity="1.0")
    tree.add(10, 10001122, 51000002, split="test")
    tree.add(11, 10001176, 51000003, split="")
    tree.add(12, 10001217, 51000004)
    tree.add(13, 10001217, 51000005)
    tree.hold_out(12)
    tree.add(14, 10001300, 51000006, split="train")
    tree.add(15, 10001300, 51000007, split="validate")
    tree.add(16, 19000001, 51000008, split="test", Pneumothorax="1.0", Atelectasis="1.0")
    tree.add(17, 19000002, 51000009, No_Finding="1.0")
    tree.add(18, 19000003, 51000010)
    tree.images.append(dict(tree.images[0], ViewPosition="AP"))
    tree.images.append(dict(tree.images[0], dicom_id="../../../etc/passwd"))
    tree.images.append(dict(tree.images[0], dicom_id=dicom_id(99), subject_id="10/../..", study_id="1"))
    return tree
