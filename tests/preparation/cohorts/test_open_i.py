"""Open-I: small made-up trees of the official shape, and the real reports that torchxrayvision carries (read only)."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.cohorts.open_i import OpenIOptions, clean_impression, labels_of, read, split_of
from meddiff.preparation.cohorts.open_i_files import image_id, read_reports
from tests.builders.files import write_table
from tests.builders.open_i_tree import NAMES, PAIR, REPORTS, report_xml, touch_pictures, write_reports
from tests.builders.readings import carried, rule_of, splits_of_patients


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A csv with the columns of its first row."""
    write_table(path, list(rows[0]), rows)


@pytest.mark.parametrize("packed", [True, False])
def test_every_image_is_used_or_says_why_not(tmp_path: Path, packed: bool) -> None:
    write_reports(tmp_path, REPORTS, packed)
    touch_pictures(tmp_path, NAMES)
    reading = read(tmp_path, OpenIOptions(views="first"))
    assert [record.key for record in reading.records] == ["CXR7_IM-0030-1001", "CXR8_IM-0031-1001"]
    first, second = reading.records
    assert (first.path, first.patient_id, first.labels) == ("NLMCXR_png/CXR7_IM-0030-1001.png", "7", ("Cardiomegaly",))
    assert first.impression == "Stable cardiomegaly, no effusion."
    assert (second.impression, second.labels) == ("Normal chest x-ray.", (NO_FINDING,))
    assert {item.rsplit("/", 1)[-1]: rule for item, rule in rule_of(reading).items()} == {
        "bad.xml": "report cannot be read", "bomb.xml": "report cannot be read", "none.xml": "report cannot be read",
        "twice.xml": "repeated report", "7_IM-0030-2001": "not the first image of its report",
        "9_IM-0032-1001": "no impression", "10_IM-0033-1001": "impression shorter than 8 characters",
        "11_IM-0034-1001": "no image file",
    }  # fmt: skip


def test_projections_say_which_images_are_frontal(tmp_path: Path) -> None:
    write_reports(tmp_path, REPORTS, packed=True)
    touch_pictures(tmp_path, NAMES)
    rows = [
        {"uid": 7, "filename": "7_IM-0030-1001.dcm.png", "projection": "Lateral"},
        {"uid": 7, "filename": "7_IM-0030-2001.dcm.png", "projection": "Frontal"},
        {"uid": 8, "filename": "8_IM-0031-1001.dcm.png", "projection": "Frontal"},
    ]
    write_rows(tmp_path / "indiana_projections.csv", rows)
    reading = read(tmp_path)
    assert reading.options["views_by"] == "projections"
    assert [record.key for record in reading.records] == ["CXR7_IM-0030-2001", "CXR8_IM-0031-1001"]


def test_the_kaggle_download_alone_gives_the_same_records(tmp_path: Path) -> None:
    write_reports(tmp_path / "nlm", REPORTS, packed=True)
    touch_pictures(tmp_path / "nlm", NAMES)
    projections = [
        {"uid": uid, "filename": f"{name.removeprefix('CXR')}.dcm.png", "projection": "Frontal"}
        for uid, name in [(7, PAIR[0]), (7, PAIR[1]), (8, NAMES[2]), (9, NAMES[3])]
    ]
    write_rows(tmp_path / "nlm" / "indiana_projections.csv", projections)
    kaggle = tmp_path / "kaggle"
    touch_pictures(kaggle, [f"{name.removeprefix('CXR')}.dcm" for name in NAMES], "images/images_normalized")
    write_rows(kaggle / "indiana_projections.csv", projections)
    rest = {"Problems": "", "image": "Xray Chest", "indication": "", "comparison": "", "findings": ""}
    write_rows(kaggle / "indiana_reports.csv", [
        {"uid": 7, "MeSH": "Cardiomegaly/mild", **rest, "impression": "Stable cardiomegaly, no XXXX effusion."},
        {"uid": 8, "MeSH": "normal", **rest, "impression": "Normal chest x-XXXX."},
        {"uid": 9, "MeSH": "normal", **rest, "impression": ""},
    ])  # fmt: skip
    here, there = read(tmp_path / "nlm").records, read(kaggle).records
    assert len(here) == 3
    assert [record.path for record in there] == [
        f"images/images_normalized/{record.path.removeprefix('NLMCXR_png/CXR').removesuffix('.png')}.dcm.png"
        for record in here
    ]
    assert [(r.key, r.impression, r.labels, r.split) for r in here] == [
        (r.key, r.impression, r.labels, r.split) for r in there
    ]


@pytest.mark.parametrize(
    ("headings", "labels"),
    [
        (["normal"], (NO_FINDING,)),
        (["Scoliosis"], ()),
        (["No Indexing"], ()),
        ([], ()),
        (["Pericardial Effusion"], ()),
        (["Pleural Effusion/left/small", "Pericardial Effusion"], ("Pleural Effusion",)),
        (["Hydropneumothorax/right"], ("Pleural Effusion", "Pneumothorax")),
        (["Cardiac Shadow/enlarged"], ("Cardiomegaly",)),
        (["Cardiac Shadow/obscured"], ()),
        (["Opacity/lung/base/left", "Pulmonary Atelectasis/base"], ("Atelectasis", "Lung Opacity")),
        (["Opacity/abdomen"], ()),
        (["Airspace Disease", "Infiltrate/lung/lower lobe"], ("Lung Opacity",)),
        (["Pneumothorax/resolved"], ()),
        (["Pneumonectomy"], ()),
        (["Angioedema"], ()),
    ],
)
def test_headings_decide_labels_by_whole_words(headings: list[str], labels: tuple[str, ...]) -> None:
    assert labels_of(headings) == labels


def test_automatic_tags_count_only_when_asked() -> None:
    assert labels_of(["Cardiomegaly"], ["pleural effusions", "no pneumothorax"]) == ("Cardiomegaly", "Pleural Effusion")
    assert labels_of(["Cardiomegaly"]) == ("Cardiomegaly",)


def test_words_that_deny_a_finding_are_no_label(tmp_path: Path) -> None:
    denied = "No pneumothorax, no pleural effusion, no focal consolidation."
    write_reports(tmp_path, {"7.xml": report_xml("CXR7", denied, ["normal"], PAIR)}, packed=True)
    touch_pictures(tmp_path, PAIR)
    assert read(tmp_path, OpenIOptions(views="first")).records[0].labels == (NO_FINDING,)


def test_splits_are_by_report_and_other_reports_do_not_change_them(tmp_path: Path) -> None:
    names = {uid: [f"CXR{uid}_IM-{uid:04}-{place}001" for place in (1, 2, 3)] for uid in range(1, 120)}
    reports = {f"{uid}.xml": report_xml(f"CXR{uid}", "Nothing acute here.", ["normal"], names[uid]) for uid in names}
    write_reports(tmp_path, reports, packed=True)
    touch_pictures(tmp_path, [name for one in names.values() for name in one])
    rows = [
        {"uid": uid, "filename": f"{name.removeprefix('CXR')}.dcm.png", "projection": "Frontal"}
        for uid, group in names.items() for name in group
    ]  # fmt: skip
    write_rows(tmp_path / "indiana_projections.csv", rows)
    options = OpenIOptions(val=0.2, fidelity=0.3)
    reading = read(tmp_path, options)
    assert len(reading.records) == 3 * 119
    splits = splits_of_patients(reading)
    assert all(one == {split_of(uid, options)} for uid, one in splits.items())
    shares = Counter(next(iter(one)) for one in splits.values())
    assert 10 < shares["val"] < 40
    assert 20 < shares["fidelity"] < 55


def test_names_of_an_image_are_one_name() -> None:
    assert image_id("CXR1_1_IM-0001-3001") == image_id("1_IM-0001-3001.dcm.png") == "1_IM-0001-3001"
    assert image_id("CXR3_IM-1384-0001-0002.png") == "3_IM-1384-0001-0002"
    assert "/" not in image_id("../../etc/passwd.png")
    assert "." not in image_id("../../etc/pass.wd.png")


def test_missing_files_are_named_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"NLMCXR_reports\.tgz"):
        read(tmp_path)
    write_reports(tmp_path, REPORTS, packed=True)
    with pytest.raises(UserError, match="no PNG images"):
        read(tmp_path)
    touch_pictures(tmp_path, NAMES)
    with pytest.raises(UserError, match=r"indiana_projections\.csv"):
        read(tmp_path, OpenIOptions(views="projections"))
    whole = (tmp_path / "NLMCXR_reports.tgz").read_bytes()
    (tmp_path / "NLMCXR_reports.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"NLMCXR_reports\.tgz"):
        read(tmp_path)


def test_members_of_an_archive_that_climb_out_are_refused_and_write_nothing(tmp_path: Path) -> None:
    write_reports(tmp_path / "in", {"../../../7.xml": REPORTS["7.xml"]}, packed=True)
    touch_pictures(tmp_path / "in", PAIR)
    with pytest.raises(UserError, match="does not stay inside the root"):
        read(tmp_path / "in", OpenIOptions(views="first"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    with pytest.raises(UserError):
        read(tmp_path / "in", OpenIOptions(reports="../in/NLMCXR_reports.tgz"))


@pytest.mark.parametrize("bad", [{"val": -0.1}, {"val": 0.5, "fidelity": 0.5}])
def test_splits_that_leave_no_training_images_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match="open-i"):
        OpenIOptions(**bad)  # type: ignore[arg-type]


def test_the_real_reports_have_the_counts_that_are_known(tmp_path: Path) -> None:
    archive = carried("NLMCXR_reports.tgz")
    (tmp_path / archive.name).write_bytes(archive.read_bytes())
    _, reports, bad = read_reports(tmp_path)
    assert (len(reports), bad) == (3955, [])
    long = [report.impression for report in reports if len(report.impression) > 7]
    assert (len(long), len(set(long))) == (3920, 1838)
    assert statistics.median(len(one.split()) for one in long) == 5
    assert sum("XXXX" in one for one in long) == 672
    assert all("XXXX" not in clean_impression(one) for one in long)
    tags = {one.uid: labels_of(one.headings, one.automatic) for one in reports}
    headings = {one.uid: labels_of(one.headings) for one in reports}
    by_tags, by_headings = (Counter(label for one in table.values() for label in one) for table in (tags, headings))
    assert by_headings[NO_FINDING] == 1391
    exact = {"Atelectasis": 394, "Pneumonia": 87, "Edema": 77, "Consolidation": 30, "Pneumothorax": 27}
    assert {label: by_tags[label] for label in exact} == exact
    # a pericardial effusion is no pleural one; an enlarged cardiac shadow is a large heart; opacities outside the lung go
    assert 185 <= by_tags["Pleural Effusion"] <= 200
    assert 379 <= by_tags["Cardiomegaly"] <= 400
    assert 520 <= by_tags["Lung Opacity"] <= 600
    assert all(by_headings[label] <= by_tags[label] for label in FINDINGS)
    # most impressions that name a pneumothorax deny it, and none of those is labelled so
    named = [one for one in reports if "pneumothorax" in one.impression.lower()]
    assert len(named) > 5 * sum("Pneumothorax" in headings[one.uid] for one in named)
    pictures = [image_id(name) for one in reports for name in one.images]
    assert len(pictures) == len(set(pictures)) == 7470
    touch_pictures(tmp_path, [name for one in reports for name in one.images])
    reading = read(tmp_path)
    assert reading.options["views_by"] == "judged"
    assert 3200 <= len(reading.records) <= 3267
    assert len({record.patient_id for record in reading.records}) == len(reading.records)
