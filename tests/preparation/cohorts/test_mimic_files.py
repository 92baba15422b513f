"""Files of MIMIC-CXR-JPG: their layouts, and what is said of those that are missing, damaged or elsewhere."""

import gzip
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.preparation.cohorts.mimic_cxr import MimicCxrOptions, read
from tests.builders.mimic_cxr_tree import ugly_tree


@pytest.mark.parametrize("gz", [".gz", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_layouts_give_the_same_cohort(tmp_path: Path, gz: str, zipped: bool) -> None:
    here = read(ugly_tree().write(tmp_path / "a"))
    there = read(ugly_tree().write(tmp_path / "b", gz, "mimic-cxr-jpg/2.1.0", zipped))
    assert [record.key for record in here.records] == [record.key for record in there.records]
    assert [record.impression for record in here.records] == [record.impression for record in there.records]
    assert there.records[0].path == f"mimic-cxr-jpg/2.1.0/{here.records[0].path}"


@pytest.mark.parametrize("name", ["metadata", "split", "chexpert"])
def test_a_missing_table_is_named_with_its_source(tmp_path: Path, name: str) -> None:
    root = ugly_tree().write(tmp_path)
    (root / f"mimic-cxr-2.0.0-{name}.csv.gz").unlink()
    with pytest.raises(UserError, match=rf"mimic-cxr-2\.0\.0-{name}\.csv\.gz.*physionet"):
        read(root)


def test_missing_reports_are_named_with_their_source(tmp_path: Path) -> None:
    root = ugly_tree().write(tmp_path)
    (root / "mimic-cxr-reports.zip").unlink()
    with pytest.raises(UserError, match=r"mimic-cxr-reports\.zip.*physionet"):
        read(root)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    root = ugly_tree().write(tmp_path)
    table = root / "mimic-cxr-2.0.0-metadata.csv.gz"
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="metadata"):
        read(root)
    # flipped, not overwritten: another build of zlib may have written what one overwrites with, or end elsewhere
    for place in range(20, len(whole) - 8, 40):
        flipped = bytes(byte ^ 0xFF for byte in whole[place : place + 8])
        table.write_bytes(whole[:place] + flipped + whole[place + 8 :])
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
    root = ugly_tree().write(tmp_path / "inside")
    (tmp_path / "outside.zip").write_bytes((root / "mimic-cxr-reports.zip").read_bytes())
    with pytest.raises(UserError):
        read(root, MimicCxrOptions(reports="../outside.zip"))
    with pytest.raises(UserError):
        read(root, MimicCxrOptions(ms_cxr="../../etc/passwd"))
    (root / "mimic-cxr-reports.zip").unlink()
    (root / "mimic-cxr-reports.zip").symlink_to(tmp_path / "outside.zip")
    with pytest.raises(UserError, match="leads out of the root"):
        read(root)
