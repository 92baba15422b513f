"""Bad input to ``lightning prepare COHORT``: one sentence, before any image is opened, and nothing touched elsewhere."""

import io
import re
import resource
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from meddiff.preparation.cohorts import COHORTS
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.cohort_trees import (
    TREES,
    cut,
    listing,
    make_folder,
    open_i_tree,
    rsna_tree,
    write_image,
    write_table,
)
from tests.builders.command import call
from tests.builders.tiny import make_vae

#: One Lightning process: this one.
HERE = ("--resolution", "64", "--accelerator", "cpu", "--devices", "1")
#: Files opened while a list is here; Python cannot take an audit hook back.
_opened: list[list[str]] = []


def _note(event: str, values: tuple[object, ...]) -> None:
    if _opened and event in ("open", "os.listdir", "os.scandir") and isinstance(values[0], str):
        _opened[-1].append(str(Path(values[0]).absolute()))


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_note)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every file and folder opened during the test."""
    _opened.append([])
    yield _opened[-1]
    _opened.clear()


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


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys, tmp_path, vae_folder, opened) -> Refused:
    """Runs ``lightning prepare ARGUMENTS``: exit code 2, one line, no image opened, nothing written. Returns the line.

    What is not given is put in: --out, --vae, resolution and processes that are right.
    """

    def run(*given: str) -> str:
        before = listing(tmp_path)
        arguments = [*given]
        for name, value in (("--out", str(tmp_path / "out")), ("--vae", str(vae_folder)), ("--resolution", "64")):
            arguments += [] if name in given else [name, value]
        opened.clear()
        code, out, err = call(capsys, "prepare", *arguments, "--accelerator", "cpu")
        during = list(opened)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert not [path for path in during if path.endswith((".png", ".jpg", ".dcm", ".dicom"))]
        assert listing(tmp_path) == before
        opened[:] = during
        return err

    return run


# ---- options, folders, tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--root", "nowhere"), "no folder nowhere"),
        (("--vae", "nowhere"), "no weights at nowhere"),
        (("--resolution", "60"), "60 is no multiple of 8"),
        (("--resolution", "0"), "0 is no multiple of 8"),
        (("--resolution", "-64"), "-64 is no multiple of 8"),
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


# ---- names that lead elsewhere --------------------------------------------------------------------------------------


def folder_of(root: Path, *rows: dict[str, str]) -> Path:
    write_table(root / "meta.csv", ("image", "text", "patient", "masks", "split"), rows)
    return root


def test_two_images_with_one_name_are_refused(refused, tmp_path):
    root = folder_of(tmp_path / "d", {"image": "a/b.png", "text": "one"}, {"image": "a-b.png", "text": "two"})
    said = refused("folder", "--root", str(root))
    assert all(name in said for name in ("'a/b.png'", "'a-b.png'", "'a-b'"))


@pytest.mark.parametrize(
    "path", ["../secret.png", "images/../../secret.png", "{}/secret.png", "..\\secret.png", "C:\\a"]
)
@pytest.mark.parametrize("column", ["image", "masks"])
def test_paths_of_a_table_stay_below_the_root(refused, tmp_path, opened, path, column):
    write_image(tmp_path / "secret.png", "secret")
    written = path.format(tmp_path)
    row = {"image": "a.png", "text": "t"} | {column: f"Edema={written}" if column == "masks" else written}
    assert "does not stay inside the root" in refused("folder", "--root", str(folder_of(tmp_path / "data", row)))
    assert not [name for name in opened if "secret" in name]


def outside(tmp_path: Path) -> tuple[Path, Path]:
    """A tree, and beside it a folder that is nobody's business."""
    secret = tmp_path / "secret"
    write_image(secret / "a001.png", "secret")
    shutil.copy(secret / "a001.png", secret / "more.png")
    return make_folder(tmp_path / "tree", train=6, boxed=2), secret


@pytest.mark.parametrize("dry", [(), ("--dry_run",)])
@pytest.mark.parametrize("name", ["images/a001.png", "images", "meta.csv"])
def test_links_out_of_the_root_are_refused(refused, tmp_path, opened, name, dry):
    root, secret = outside(tmp_path)
    moved = secret / f"of-{Path(name).name}"
    shutil.move(root / name, moved)
    (root / name).symlink_to(moved)
    assert "leads out of the root" in refused("folder", "--root", str(root), *dry)
    assert not [path for path in opened if path.startswith(str(secret))]
    # inside the root a link is a file like others
    (root / name).unlink()
    shutil.move(moved, root / f"of-{Path(name).name}")
    (root / name).symlink_to(root / f"of-{Path(name).name}")


def test_a_link_of_a_mask_out_of_the_root_stops_the_command_and_is_not_followed(tmp_path, vae_folder, capsys, opened):
    root, secret = outside(tmp_path)
    (root / "images/a006_mask.png").unlink()
    (root / "images/a006_mask.png").symlink_to(secret / "more.png")
    command = ["prepare", "folder", "--root", str(root), "--out", str(tmp_path / "out"), "--vae", str(vae_folder)]
    opened.clear()
    code, _, err = call(capsys, *command, *HERE)
    assert code == 2
    assert "leads out of the root" in err.splitlines()[-1]
    assert not [path for path in opened if path.startswith(str(secret))]


def test_members_of_archives_that_lead_elsewhere_write_and_read_nothing_there(refused, tmp_path, vae_folder, capsys):
    rsna, open_i = tmp_path / "rsna", tmp_path / "open-i"
    rsna.mkdir()
    pytest.importorskip("pydicom")
    rsna_tree(rsna)
    table = rsna / "stage_2_train_labels.csv"
    with zipfile.ZipFile(f"{table}.zip", "w") as archive:
        archive.writestr(f"../{table.name}", table.read_text())
    table.unlink()
    assert "does not stay inside the root" in refused("rsna", "--root", str(rsna))

    open_i_tree(open_i)
    with tarfile.open(open_i / "NLMCXR_reports.tgz") as archive:
        members = {one.name: archive.extractfile(one) for one in archive}
        reports = {name: stream.read() for name, stream in members.items() if stream}
    with tarfile.open(open_i / "NLMCXR_reports.tgz", "w:gz") as archive:
        for name, data in reports.items():
            info = tarfile.TarInfo(name.replace("ecgen-radiology/2", "../../evil/2"))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("ecgen-radiology/link.xml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = listing(tmp_path)
    code, _, err = call(
        capsys, "prepare", "open-i", "--root", str(open_i), "--out", str(tmp_path / "out"), "--vae", str(vae_folder),
        "--views", "first", *HERE,
    )  # fmt: skip
    assert code == 2
    assert "evil/2" in err
    assert err.count("\n") == 1
    assert listing(tmp_path) == before


def test_a_run_opens_nothing_beside_root_out_and_vae(tmp_path, vae_folder, capsys, opened, monkeypatch):
    root, secret = outside(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    command = ["prepare", "folder", "--root", str(root), "--out", str(tmp_path / "out"), "--vae", str(vae_folder)]
    opened.clear()
    assert call(capsys, *command, *HERE)[0] == 0
    below = {Path(path).relative_to(tmp_path).parts for path in opened if path.startswith(str(tmp_path))}
    assert ("tree", "images", "a000.png") in below
    # Python looks into the working folder for modules
    assert {parts[0] for parts in below if parts} <= {"tree", "out", "here"}
    assert not list(here.iterdir())
    assert len(list(secret.iterdir())) == 2


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
