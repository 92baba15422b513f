"""Bad input to ``lightning prepare COHORT``: one sentence, before any image is opened, and nothing touched elsewhere."""

import re
import resource
import shutil
from pathlib import Path

import pytest
import torch

from meddiff.preparation.cohorts import COHORTS
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.cohort_trees import (
    TREES,
    cut,
    make_folder,
)
from tests.builders.command import HERE, call
from tests.builders.tiny import make_vae


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("errors") / "tree", train=6, boxed=2)


@pytest.fixture(scope="module")
def whole(tree: Path, vae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the tree, from the command."""
    from meddiff.cli.main import main

    out = tmp_path_factory.mktemp("errors") / "out"
    with pytest.raises(SystemExit) as exit_:
        main(["prepare", "folder", "--root", str(tree), "--out", str(out), "--vae", str(vae_folder), *HERE])
    assert exit_.value.code == 0
    return out


# ---- options, folders, tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--root", "nowhere"), "no folder nowhere"),
        (("--vae", "nowhere"), "no weights at nowhere"),
        (("--resolution", "60"), "60 is no multiple of 8"),
        (("--resolution", "0"), "lie in [1, 16,384]"),
        (("--resolution", "-64"), "lie in [1, 16,384]"),
        (("--resolution", "small"), "resolution"),
        (("--limit", "0"), "1 or more images"),
        (("--processes", "0"), "processes is 0"),
        (("--devices", "-1"), "devices is -1"),
        (("--num_nodes", "0"), "num_nodes is 0"),
        (("--val", "2"), "parts of 1"),
        (("--agreement", "2"), "agreement"),
        (("--table", "other.csv"), "no file other.csv"),
        (("--table", "../meta.csv"), "does not stay inside the root"),
        (("--table", "/etc/passwd"), "does not stay inside the root"),
        (("--image", "file"), "no column 'file'"),
    ],
)
def test_bad_options_get_one_sentence(refused, tree, options, words):
    rest = () if "--root" in options else ("--root", str(tree))
    assert words in refused("folder", *rest, *options)


def test_unknown_cohort_no_root_and_no_out(refused, tree, capsys):
    assert all(name in refused("moon", "--root", str(tree)) for name in COHORTS)
    assert "root" in refused("nih")
    code, _, err = call(capsys, "prepare", "nih", "--root", str(tree))
    assert (code, err.count("\n")) == (2, 1)
    assert "needs --out" in err
    assert "no folder" in refused("folder", "--root", str(tree / "meta.csv"))


@pytest.mark.parametrize("cohort", COHORTS)
def test_a_root_without_the_cohorts_files_is_named(refused, tmp_path, cohort):
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'} holds no" in refused(cohort, "--root", str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("cohort", "table"),
    [
        ("mimic-cxr", "mimic-cxr-2.0.0-metadata.csv.gz"),
        ("mimic-cxr", "mimic-cxr-reports.zip"),
        ("ms-cxr", "MS_CXR_Local_Alignment_v1.0.0.csv"),
        ("mscoco", "annotations/instances_val2017.json"),
        ("open-i", "NLMCXR_reports.tgz"),
        ("nih", "Data_Entry_2017.csv"),
        ("vindr-cxr", "vindr-cxr/1.0.0/annotations/annotations_train.csv.gz"),
        ("rsna", "stage_2_detailed_class_info.csv"),
        ("padchest-gr", "grounded_reports_20240819.json"),
        ("padchest-gr", "master_table.csv"),
        ("folder", "meta.csv"),
    ],
)
def test_a_table_that_is_gone_cut_off_or_rubbish_is_named(refused, tmp_path, cohort, table):
    root = tmp_path / "data"
    root.mkdir()
    options = TREES[cohort](root)
    if not table.endswith(".csv"):  # of a csv without its end rows are missing, and nothing says so
        cut(root / table)
        assert Path(table).name in refused(cohort, "--root", str(root), *options)
    (root / table).write_bytes(b"\x00\xff\xfe rubbish \x80\n" * 50)
    assert Path(table).name in refused(cohort, "--root", str(root), *options)
    (root / table).unlink()
    said = refused(cohort, "--root", str(root), *options)
    assert "holds no" in said
    assert Path(table).stem.split("_v1")[0].split(".")[0] in said


def test_other_shards_in_out_stay_and_are_refused(refused, tree, whole, tmp_path, vae_folder, capsys):
    out = tmp_path / "whole"
    shutil.copytree(whole, out)
    nih = tmp_path / "nih"
    nih.mkdir()
    TREES["nih"](nih)
    assert "already holds the cohort folder" in refused("nih", "--root", str(nih), "--out", str(out))
    same = ("folder", "--root", str(tree), "--out", str(out))
    assert "resolution" in refused(*same, "--resolution", "32")
    assert "vae" in refused(*same, "--vae", str(make_vae(tmp_path / "vae", 5)))
    assert "options" in refused(*same, "--limit", "2")
    assert len(LatentShardsDataset(out, "grounding")) == 2
    # and the same command finds nothing to do
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert call(capsys, "prepare", *same, "--vae", str(vae_folder), *HERE)[0] == 0
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")} == before


def test_an_output_that_cannot_be_made_and_a_device_that_is_not_there(tree, tmp_path, vae_folder, capsys, refused):
    (tmp_path / "file").write_text("")
    assert "cannot write to" in refused("folder", "--root", str(tree), "--out", str(tmp_path / "file" / "out"))
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return
    command = ["prepare", "folder", "--root", str(tree), "--out", str(tmp_path / "out"), "--vae", str(vae_folder)]
    code, _, err = call(capsys, *command, "--resolution", "64", "--accelerator", "gpu")
    assert code == 2
    assert err.splitlines()[-1].startswith("error: prepare cannot use accelerator gpu")


# ---- a full disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", [("--devices", "1"), ("--processes", "1")])
def test_a_disk_that_takes_no_more_is_one_sentence_and_the_same_command_goes_on(
    tmp_path, tree, whole, vae_folder, capsys, machine
):
    """The limit of the system on a file's size: a real failure of a write, also in a pool's process."""
    out = tmp_path / "out"
    command = ["prepare", "folder", "--root", str(tree), "--out", str(out), "--vae", str(vae_folder)]
    command += ["--resolution", "64", "--accelerator", "cpu", *machine]
    largest = max(path.stat().st_size for path in whole.glob("*.tar"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, limits[1]))
    try:
        code, _, err = call(capsys, *command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2
    sentence = err.replace("\r", "\n").splitlines()[-1]
    full = rf"error: cannot write {out}/\w+-00000\.tar \(File too large\): the shards finished so far are whole; .*"
    assert re.fullmatch(full, sentence)
    assert "Traceback" not in err
    assert not list(out.glob(".*.tar.*"))
    assert not (out / "manifest.json").exists()
    if "--devices" in machine:
        assert call(capsys, *command)[0] == 0
        assert {p.name: p.read_bytes() for p in out.glob("*.tar")} == {
            p.name: p.read_bytes() for p in whole.glob("*.tar")
        }
