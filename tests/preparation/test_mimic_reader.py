"""MIMIC-CXR-JPG trees with the official names, columns and compression. Every patient and every report is made up."""

import csv
import gzip
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.cohorts.mimic_cxr import MimicCxrOptions, read
from meddiff.preparation.cohorts.mimic_labels import labels_of
from meddiff.preparation.records import Reading, Record
from meddiff.preparation.reports_text import PAPER, TextRules

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


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """A csv, compressed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def dicom(number: int) -> str:
    """Five groups of eight hexadecimal digits, as MIMIC-CXR writes them."""
    return "-".join(f"{number * 7 + group:08x}" for group in range(5))


class Tree:
    """A small download: add images, then ``write``."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.splits: list[dict[str, Any]] = []
        self.labels: dict[str, dict[str, Any]] = {}
        self.reports: dict[str, str] = {}
        self.phrases: list[dict[str, Any]] = []

    def add(
        self,
        number: int,
        patient: int,
        study: int,
        view: str = "PA",
        split: str = "train",
        report: str | None = " FINAL REPORT\n IMPRESSION:\n\n No acute\n disease.\n",
        **labels: Any,
    ) -> str:
        ids = {"dicom_id": dicom(number), "subject_id": str(patient), "study_id": str(study)}
        self.images.append({**ids, "ViewPosition": view, "Rows": 3056, "Columns": 2544, "StudyDate": 21800506})
        if split:
            self.splits.append({**ids, "split": split})
        row = self.labels.setdefault(str(study), dict(ids))
        row.update({name.replace("_", " "): value for name, value in labels.items()})
        if report is not None:
            self.reports[f"files/p{str(patient)[:2]}/p{patient}/s{study}.txt"] = report
        return dicom(number)

    def hold_out(self, number: int) -> None:
        one = next(image for image in self.images if image["dicom_id"] == dicom(number))
        patient, study = one["subject_id"], one["study_id"]
        path = f"files/p{patient[:2]}/p{patient}/s{study}/{dicom(number)}.jpg"
        box = dict.fromkeys(("x", "y", "w", "h"), 5) | {"image_width": 2544, "image_height": 3056}
        self.phrases.append(
            {"category_name": "Edema", "label_text": "edema", "path": path, "dicom_id": dicom(number), **box}
        )

    def write(self, root: Path, gz: str = ".gz", folder: str = "", zipped: bool = True) -> Path:
        jpg = root / folder
        write_csv(jpg / f"mimic-cxr-2.0.0-metadata.csv{gz}", METADATA, self.images)
        write_csv(jpg / f"mimic-cxr-2.0.0-split.csv{gz}", ("dicom_id", "study_id", "subject_id", "split"), self.splits)
        for labeler in ("chexpert", "negbio"):
            rows = [{key: value for key, value in row.items() if key != "dicom_id"} for row in self.labels.values()]
            write_csv(jpg / f"mimic-cxr-2.0.0-{labeler}.csv{gz}", ("subject_id", "study_id", *LABELS), rows)
        write_csv(root / "MS_CXR_Local_Alignment_v1.0.0.csv", MS_CXR, self.phrases)
        if zipped:
            with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, text in self.reports.items():
                    archive.writestr(name, text)
        else:
            for name, text in self.reports.items():
                path = root / "mimic-cxr" / "2.1.0" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        return root


def by_key(reading: Reading) -> dict[str, Record]:
    return {record.key: record for record in reading.records}


def rejected(reading: Reading) -> dict[str, str]:
    return {one.item: one.rule for one in reading.rejected}


def steps(reading: Reading) -> dict[str, int]:
    """Rule -> how many it left."""
    return {row[0]: row[1] for row in reading.funnel.rows()}


def removed_by_rules(reading: Reading) -> dict[str, int]:
    return {rule: removed for rule, _, removed in reading.funnel.rows() if removed}


def ugly() -> Tree:
    """One image for each thing that can happen."""
    tree = Tree()
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
    tree.images.append(dict(tree.images[0], dicom_id=dicom(99), subject_id="10/../..", study_id="1"))
    return tree


def test_every_image_is_used_or_says_why_not(tmp_path: Path) -> None:
    tree = ugly()
    reading = read(tree.write(tmp_path), MimicCxrOptions(fidelity=2, no_finding_share=0.0))
    used = {number: by_key(reading)[dicom(number)].split for number in range(1, 19) if dicom(number) in by_key(reading)}
    assert used == {1: "train", 3: "train", 8: "train", 9: "val", 15: "val", 16: "fidelity"}
    reasons = rejected(reading)
    expected = {
        2: "view is not PA or AP", 4: "view is not PA or AP", 5: "no report", 6: "no impression",
        7: "impression shorter than 8 characters", 10: "official test split", 11: "no official split",
        12: "MS-CXR image", 13: "other image of a patient of MS-CXR", 14: "patient in two official splits",
        17: "p19 image not drawn for the fidelity set", 18: "p19 image not drawn for the fidelity set",
    }  # fmt: skip
    assert {number: reasons[dicom(number)] for number in expected} == expected
    assert reasons["../../../etc/passwd"] == reasons[dicom(99)] == "malformed identifiers"
    assert reasons[dicom(1)] == "repeated dicom_id"
    assert len(reading.records) + len(reading.rejected) == len(tree.images)
    assert removed_by_rules(reading) == Counter(one.rule for one in reading.rejected)
    assert steps(reading)["impression shorter than 8 characters"] == 13
    assert reading.options["counts"] == {"train": 3, "val": 2, "fidelity": 1}
    assert reading.options["paper_train"] == 162_651


def test_a_record_holds_path_text_view_and_labels(tmp_path: Path) -> None:
    record = by_key(read(ugly().write(tmp_path)))[dicom(1)]
    assert record.path == f"files/p10/p10000032/s50414267/{dicom(1)}.jpg"
    assert record.impression == "No acute disease."
    assert (record.view, record.patient_id, record.labels) == ("PA", "10000032", ("Edema",))
    assert record.attributes == {
        "study_id": "50414267", "uncertain": ["Pneumonia"], "other_labels": ["Fracture"], "impression_from": "heading",
    }  # fmt: skip


@pytest.mark.parametrize("gz", [".gz", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_layouts_give_the_same_cohort(tmp_path: Path, gz: str, zipped: bool) -> None:
    here = read(ugly().write(tmp_path / "a"))
    there = read(ugly().write(tmp_path / "b", gz, "mimic-cxr-jpg/2.1.0", zipped))
    assert [record.key for record in here.records] == [record.key for record in there.records]
    assert [record.impression for record in here.records] == [record.impression for record in there.records]
    assert there.records[0].path == f"mimic-cxr-jpg/2.1.0/{here.records[0].path}"


def test_records_are_sorted_and_no_patient_is_in_two_splits(tmp_path: Path) -> None:
    tree = Tree()
    rng = generator(5, "mimic tree")
    for number in range(1, 400):
        patient = int(rng.choice([10, 15, 19])) * 1_000_000 + int(rng.integers(60))
        split = str(rng.choice(["train", "train", "train", "validate", "test"]))
        tree.add(number, patient, 50_000_000 + number, split=split, Edema=str(rng.choice(["1.0", "", "0.0"])))
    for number in (3, 50, 77):
        tree.hold_out(number)
    root = tree.write(tmp_path)
    for val in ("official", "patients"):
        reading = read(root, MimicCxrOptions(val=val, val_fraction=0.3, fidelity=20))
        keys = [record.key for record in reading.records]
        assert keys == sorted(set(keys))
        splits: dict[str, set[str]] = {}
        for record in reading.records:
            splits.setdefault(record.patient_id, set()).add(record.split)
        assert all(len(one) == 1 for one in splits.values())
        assert set().union(*splits.values()) == {"train", "val", "fidelity"}
        held = {row["path"].split("/")[2][1:] for row in tree.phrases}
        assert held.isdisjoint(splits)
        assert {patient for patient, one in splits.items() if one == {"fidelity"}} == {
            p for p in splits if p[:2] == "19"
        }
        assert len(reading.records) + len(reading.rejected) == 399


def test_ms_cxr_images_stay_when_asked(tmp_path: Path) -> None:
    root = ugly().write(tmp_path)
    (root / "MS_CXR_Local_Alignment_v1.0.0.csv").unlink()
    with pytest.raises(UserError, match="hold_out_ms_cxr"):
        read(root)
    assert dicom(12) in by_key(read(root, MimicCxrOptions(hold_out_ms_cxr=False)))


def fidelity_tree(findings: int, normal: int, nothing: int) -> Tree:
    tree = Tree()
    for number in range(findings + normal + nothing):
        labels = {"Edema": "1.0"} if number < findings else {"No_Finding": "1.0"} if number < findings + normal else {}
        tree.add(number, 19_000_000 + number, 50_000_000 + number, **labels)
    return tree


def test_no_finding_is_thinned_in_the_fidelity_set(tmp_path: Path) -> None:
    root = fidelity_tree(100, 200, 30).write(tmp_path)
    reading = read(root, MimicCxrOptions(fidelity=90))
    assert Counter(record.labels for record in reading.records) == {("Edema",): 80, (NO_FINDING,): 10}
    assert reading.records == read(root, MimicCxrOptions(fidelity=90)).records
    others = {record.key for record in read(root, MimicCxrOptions(fidelity=90, seed=1)).records}
    assert others != {record.key for record in reading.records}
    # too few findings: a smaller set, not one of healthy chests
    assert Counter(record.labels for record in read(root, MimicCxrOptions(fidelity=180)).records) == {
        ("Edema",): 100, (NO_FINDING,): 20,
    }  # fmt: skip
    assert read(root, MimicCxrOptions(fidelity=0)).records == []


def test_one_image_less_changes_one_image_of_the_fidelity_set(tmp_path: Path) -> None:
    tree = fidelity_tree(100, 0, 0)
    before = set(by_key(read(tree.write(tmp_path / "a"), MimicCxrOptions(fidelity=40))))
    gone = min(before)
    tree.images = [image for image in tree.images if image["dicom_id"] != gone]
    after = set(by_key(read(tree.write(tmp_path / "b"), MimicCxrOptions(fidelity=40))))
    assert before - after == {gone}
    assert len(after - before) == 1


def test_labels_follow_the_written_policy() -> None:
    assert labels_of({}) == ()
    assert labels_of({"Edema": "1.0", "No Finding": "1.0"}) == ("Edema",)
    assert labels_of({"Edema": "-1.0", "Pneumonia": "0.0"}) == ()
    assert labels_of({"Edema": "-1.0"}, uncertain="positive") == ("Edema",)
    assert labels_of({"No Finding": "1.0"}) == (NO_FINDING,)
    assert labels_of({"Fracture": "1.0"}) == labels_of({"Fracture": "1.0"}, unlabelled="no-finding") == ()
    assert labels_of({"Edema": "-1.0"}, unlabelled="no-finding") == (NO_FINDING,)
    assert labels_of({}, unlabelled="no-finding") == (NO_FINDING,)
    assert labels_of(dict.fromkeys(reversed(LABELS), "1.0")) == FINDINGS
    with pytest.raises(UserError, match=r"'2\.0' for Edema"):
        labels_of({"Edema": "2.0"})


def test_a_study_without_a_row_of_labels_is_kept_without_labels(tmp_path: Path) -> None:
    tree = ugly()
    del tree.labels["50414267"]
    assert by_key(read(tree.write(tmp_path)))[dicom(1)].labels == ()


def test_the_published_text_rule_glues_words(tmp_path: Path) -> None:
    tree = Tree()
    tree.add(1, 10000032, 50000001, report="IMPRESSION:\nNo acute\ndisease.")
    root = tree.write(tmp_path)
    assert read(root, MimicCxrOptions(text=PAPER)).records[0].impression == "No acutedisease."
    assert read(root, MimicCxrOptions(text=TextRules())).records[0].impression == "No acute disease."


@pytest.mark.parametrize("name", ["metadata", "split", "chexpert"])
def test_a_missing_table_is_named_with_its_source(tmp_path: Path, name: str) -> None:
    root = ugly().write(tmp_path)
    (root / f"mimic-cxr-2.0.0-{name}.csv.gz").unlink()
    with pytest.raises(UserError, match=rf"mimic-cxr-2\.0\.0-{name}\.csv\.gz.*physionet"):
        read(root)


def test_missing_reports_are_named_with_their_source(tmp_path: Path) -> None:
    root = ugly().write(tmp_path)
    (root / "mimic-cxr-reports.zip").unlink()
    with pytest.raises(UserError, match=r"mimic-cxr-reports\.zip.*physionet"):
        read(root)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    root = ugly().write(tmp_path)
    table = root / "mimic-cxr-2.0.0-metadata.csv.gz"
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="metadata"):
        read(root)
    for place in range(20, len(whole), 40):
        table.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
        with pytest.raises(UserError, match="metadata"):
            read(root)
    table.write_bytes(gzip.compress(b"dicom_id,subject_id\n1,2\n"))
    with pytest.raises(UserError, match="no column 'study_id'"):
        read(root)
    table.write_bytes(whole)
    (root / "mimic-cxr-reports.zip").write_bytes(b"PK not a zip")
    with pytest.raises(UserError, match=r"mimic-cxr-reports\.zip"):
        read(root)


def test_a_source_of_reports_outside_the_root_is_refused(tmp_path: Path) -> None:
    root = ugly().write(tmp_path / "inside")
    (tmp_path / "outside.zip").write_bytes((root / "mimic-cxr-reports.zip").read_bytes())
    with pytest.raises(UserError):
        read(root, MimicCxrOptions(reports="../outside.zip"))
    with pytest.raises(UserError):
        read(root, MimicCxrOptions(ms_cxr="../../etc/passwd"))
    (root / "mimic-cxr-reports.zip").unlink()
    (root / "mimic-cxr-reports.zip").symlink_to(tmp_path / "outside.zip")
    with pytest.raises(UserError, match="leads out of the root"):
        read(root)


@pytest.mark.parametrize("bad", [{"fidelity": -1}, {"no_finding_share": 1.5}, {"val_fraction": 1.0}])
def test_options_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="mimic-cxr"):
        MimicCxrOptions(**bad)
