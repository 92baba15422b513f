"""The nearest pairs of drawn and training images, as ``lightning evaluate copies`` left them in the evaluation's folder.

They hold pictures of patients. Of a cohort that anybody may have, the page shows them; of any other it says where they lie,
since a page is passed on more easily than a folder. Source: own.
"""

from dataclasses import dataclass
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.reports.page.media import Media, data_uri
from meddiff.runs import names
from meddiff.runs.evaluation_folder import read_evaluation
from meddiff.runs.folder import Run
from meddiff.shards.access import access_of

#: Written by :mod:`meddiff.evaluation.copy_pairs`: drawn left, training right, nearest first.
FOLDER, FILE = "copies", "training_captions.png"
#: Bytes that a page takes; larger pictures are named.
LARGEST = 2**20


@dataclass(frozen=True)
class Pairs:
    """What the page has of the pairs.

    Attributes:
        place: the picture's place below the run folder.
        uri: the picture; "" where it is not shown.
        why: why not.
    """

    place: str
    uri: str = ""
    why: str = ""


def pairs(run: Run) -> Pairs | None:
    """Of the newest evaluation that has them."""
    folders = sorted(file.parent for file in (run.path / names.EVALUATIONS).glob(f"*/{FOLDER}/{FILE}"))
    file = Media(folders[-1], {}).file(FILE) if folders else None
    if file is None:
        return None
    place = terminal(f"{names.EVALUATIONS}/{folders[-1].parent.name}/{FOLDER}/{FILE}")
    if access_of(cohort_of(folders[-1].parent)) != "public":
        return Pairs(place, why="its cohort is not for everybody")
    if file.stat().st_size > LARGEST:
        return Pairs(place, why="it is too large for a page")
    uri = data_uri(file)
    return Pairs(place, uri) if uri else Pairs(place, why="it is no picture")


def cohort_of(evaluation: Path) -> str:
    """As the evaluation says; "" where it does not, which is not for everybody."""
    try:
        found = read_evaluation(evaluation).about.get("cohort")
    except UserError:
        return ""
    return found if isinstance(found, str) else ""
