"""Write the table of ``docs/bad_inputs.md`` from the cases of ``tests/fuzz``: each is run, and what it says is written down.

python tools/bad_inputs_table.py
"""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from meddiff.cli.main import main  # noqa: E402
from meddiff.common.outside import markdown_cell  # noqa: E402
from tests.builders.bad_inputs import Bad, Place, make_place, read_batch  # noqa: E402
from tests.builders.tiny import make_shards, make_vae  # noqa: E402

MARK = "<!-- made by tools/bad_inputs_table.py -->"
LONGEST = 220


def kind_of(case: Bad) -> str:
    """The first cell of a case's row."""
    return markdown_cell(" ".join(f"{case.door}: {case.what}".split())).replace("|", "/")


def said(case: Bad, place: Place) -> tuple[int, str]:
    """Exit code and sentence of a case, with the names of the place instead of paths."""
    case.spoil(place)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if case.command == "(a batch of the training split)":
            code = read_batch(place, err)
        else:
            words = case.command if isinstance(case.command, tuple) else case.command.split(" ")
            try:
                main([place.named(word) for word in words])
                code = 0
            except SystemExit as stopped:
                code = int(stopped.code or 0)
    lines = [line.removeprefix("error: ") for line in err.getvalue().splitlines() if line.startswith("error: ")]
    text = place.masked(lines[0]) if lines else "the page is written, without it"
    text = re.sub(r"/[^ ]*fault-\d+\.txt", "FILE", text).replace(str(place.folder.parent), "")
    return code, text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def write() -> None:
    """Run all cases and write the page's table."""
    from tests.fuzz.cases import CASES

    os.environ.setdefault("WANDB_MODE", "offline")
    root = Path(tempfile.mkdtemp())
    vae = make_vae(root / "vae", seed=0)
    whole = make_place(root / "whole", vae, make_shards(root / "shards", vae))
    rows = []
    for number, case in enumerate(CASES):
        place = Place(root / str(number))
        shutil.copytree(whole.folder, place.folder)
        for file in (place.config, place.sweep):
            file.write_text(file.read_text().replace(str(whole.folder), str(place.folder)))
        before = dict(os.environ)
        os.chdir(place.folder)
        code, text = said(case, place)
        os.chdir(ROOT)
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(place.folder)
        rows.append(f"| {kind_of(case)} | {markdown_cell(text)} | {code} |")
        if code != case.code:
            print(f"{kind_of(case)}: {code}, not {case.code}: {text}", file=sys.stderr)
    shutil.rmtree(root)
    page = ROOT / "docs" / "bad_inputs.md"
    head = page.read_text(encoding="utf-8").partition(MARK)[0]
    table = "\n".join(["| kind | sentence | exit code |", "|---|---|---|", *rows])
    page.write_text(f"{head}{MARK}\n\n{table}\n", encoding="utf-8")
    print(f"{len(rows)} kinds in {page.relative_to(ROOT)}")


if __name__ == "__main__":
    write()
