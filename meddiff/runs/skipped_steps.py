"""``skipped_steps.jsonl`` of a run: the steps that were left out because they were not finite. Source: own."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from meddiff.common.files import make_folder
from meddiff.common.outside import own_file
from meddiff.runs import names
from meddiff.runs.metrics_file import end_cut_line


def note_skipped(run_dir: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Append one line a step: ``{"step": 40, "what": "the loss", "keys": ["p10/s50"]}``; on the disk when this returns.

    A step that was run again after a resume stands there twice. Sample keys stay in the run folder: no logger sees them.
    """
    file = own_file(run_dir / names.SKIPPED)
    make_folder(file.parent)
    end_cut_line(file)
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(dict(row)) + "\n" for row in rows)
        stream.flush()
        os.fsync(stream.fileno())
