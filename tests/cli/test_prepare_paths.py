"""Names in tables and archives of ``lightning prepare`` that lead elsewhere: refused, and nothing touched there."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.builders.cohort_trees import (
    listing,
    make_folder,
    open_i_tree,
    rsna_tree,
    write_image,
    write_table,
)
from tests.builders.command import HERE, call


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
