"""What an evaluation finds in its folder: results of the same model on the same data, or of others that would be mixed up.

Source: own.
"""

from collections.abc import Mapping
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.runs import names
from meddiff.runs.records import read_record

#: Key of ``evaluation.json`` under which each part says from which weights and which samples it was made.
MADE = "made"
#: What tells models apart in files that say no more.
FACTS = ("checkpoint", "images", "seed", "cohort")
WORDS = {"model": "weights", "samples": "samples"}


def refuse_other_results(folder: Path, about: Mapping[str, object], made: Mapping[str, Mapping[str, object]]) -> None:
    """Refuse a folder whose tables are of another model, or of other samples than the parts to be measured have.

    Args:
        folder: of the evaluation.
        about: of the model, as :class:`meddiff.runs.evaluations.EvaluationWriter` takes it.
        made: part -> {"model": digest, "samples": digest} of what is about to be measured.

    Raises:
        UserError: one sentence that says what differs; the folder is left as it is.
    """
    record = read_record(folder / names.ABOUT, "give another --out, or delete it")
    model = next((one.get("model") for one in made.values()), None)
    parts, before = (value if isinstance(value := record.get(name), dict) else {} for name in ("parts", MADE))
    for part in parts:
        one = before.get(part)
        if isinstance(one, dict):
            # parts that are not measured now share the model, but may look at another split
            now = made.get(part) or {"model": model}
            other = [WORDS[name] for name in now if name in WORDS and one.get(name) != now[name]]
        else:
            other = [name for name in FACTS if name in record and record[name] != about.get(name)]
        if other:
            raise UserError(
                f"{folder} holds {part} of another model or other data ({', '.join(other)}): give another --out, or delete it."
            )
