"""What ``lightning evaluate`` found of a run, as columns of its rows. No torch. Source: own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from meddiff.common.bounded import parse_json
from meddiff.common.errors import UserError
from meddiff.common.text_files import read_bytes
from meddiff.reports.page.mechanism import stages
from meddiff.runs import names
from meddiff.runs.evaluation_folder import EvaluationFolder, read_evaluation
from meddiff.runs.folder import Run
from meddiff.runs.values import nested, number

#: Of ``lightning evaluate mechanism``, at each kept checkpoint: the finding's word, and where its meaning may have gone.
_PLACES = ("finding", "end")
MECHANISM = tuple(
    f"mechanism/{figure}"
    for figure in (
        *(f"attention/{token}" for token in (*_PLACES, "start", "padding")),
        *(f"cnr/{token}/{mask}" for token in _PLACES for mask in ("finding", "other_finding")),
        *(f"cnr/finding/{mask}" for mask in ("confounder", "other_confounder")),
        *(f"moved/{token}" for token in _PLACES),
        *(f"probe/{asked}/{token}" for token in _PLACES for asked in ("named", "denied", "side")),
    )
)
#: What is asked of a generator before it is trusted, of the trained model: PART/FIGURE of the command -> what it is called.
TRUST = {
    "copies/copy_share_pixels": "copies by pixels, share of drawn images",
    "copies/copy_share_domain": "copies by features, share",
    "copies/authentic_share_domain": "authentic images, share",
    "coverage/precision_k5_domain": "precision, k = 5",
    "coverage/recall_k5_domain": "recall, k = 5",
    "coverage/coverage_k5_domain": "coverage, k = 5",
    "coverage/irs_adjusted_domain": "image retrieval score, of real images'",
    "coverage/vendi_ratio_domain": "Vendi score, of real images'",
    "utility/utility_synthetic_auroc": "classifier trained on drawn images, AUROC on real ones",
    "utility/utility_gain_synthetic": "the same, less trained on real images",
    "utility/utility_gain": "trained on both, less trained on real images",
    "utility/utility_gain_synthetic_then_real": "trained on drawn, then real images, less real",
    "alignment/alignment_classifier_auroc": "finding asked for is in the image, AUROC",
    "alignment/alignment_classifier_agreement": "agreement with the prompt",
    "alignment/alignment_classifier_retrieval": "prompt retrieved",
    "absent/absent_auroc": "map tells present from absent, AUROC",
    "absent/false_focus": "CNR in the usual place, absent less present findings",
    "absent/no_target_accuracy": "map silent when absent, share",
}
#: What those stand beside, of real images or of what nobody can learn from; called by the figure that it is the control of.
TRUST_CONTROLS = {
    "copies/held_out/copy_share_pixels": ("copies/copy_share_pixels", "held-out real images"),
    "copies/held_out/copy_share_domain": ("copies/copy_share_domain", "held-out real images"),
    "copies/held_out/authentic_share_domain": ("copies/authentic_share_domain", "held-out real images"),
    "coverage/held_out/precision_k5_domain": ("coverage/precision_k5_domain", "held-out real images"),
    "coverage/held_out/recall_k5_domain": ("coverage/recall_k5_domain", "held-out real images"),
    "coverage/held_out/coverage_k5_domain": ("coverage/coverage_k5_domain", "held-out real images"),
    "coverage/one_image/coverage_k5_domain": ("coverage/coverage_k5_domain", "one image repeated"),
    "utility/utility_real_auroc": ("utility/utility_synthetic_auroc", "trained on real images"),
    "utility/utility_shuffled_auroc": ("utility/utility_synthetic_auroc", "trained on shuffled labels"),
    "utility/utility_gain_real_twice": ("utility/utility_gain", "real images, twice the steps"),
    "alignment/real/alignment_classifier_auroc": ("alignment/alignment_classifier_auroc", "real images"),
    "alignment/shuffled/alignment_classifier_auroc": ("alignment/alignment_classifier_auroc", "prompts shuffled"),
    "alignment/real/alignment_classifier_agreement": ("alignment/alignment_classifier_agreement", "real images"),
    "alignment/real/alignment_classifier_retrieval": ("alignment/alignment_classifier_retrieval", "real images"),
    "alignment/alignment_retrieval_chance": ("alignment/alignment_classifier_retrieval", "chance"),
    "absent/absent_auroc_shuffled": ("absent/absent_auroc", "presence shuffled"),
}


def of_evaluations(run: Run, images: int) -> dict[str, float]:
    """Controls, :data:`TRUST` and :data:`TRUST_CONTROLS` of the trained model; nothing of what was not measured.

    Args:
        images: that it was trained on.
    """
    newest_first = sorted(
        (
            one
            for file in sorted((run.path / names.EVALUATIONS).glob(f"*/{names.ABOUT}"))
            if (one := _opened(file.parent)) is not None and one.images == images
        ),
        key=lambda one: -(one.path / names.ABOUT).stat().st_mtime,
    )
    return {**_of_controls(newest_first), **_of_trust(newest_first)}


def _of_controls(evaluations: Sequence[EvaluationFolder]) -> dict[str, float]:
    """Of ``lightning evaluate controls``: pairs, twins, gains, the absent finding's CNR."""
    newest = _with(evaluations, "controls")
    if newest is None:
        return {}
    figures = _figures(newest, "controls")
    found = {
        f"controls/{key}": number(value) for key, value in figures.items() if key.startswith("pairs/") or is_gain(key)
    }
    for row in newest.table("controls"):
        if row.get("control") == "absent_finding":
            found["controls/absent_finding/macro_cnr"] = number(row.get("macro_cnr"))
    found["controls/macro_cnr"] = number(figures.get("macro_cnr"))
    return {key: value for key, value in found.items() if value is not None}


def _of_trust(evaluations: Sequence[EvaluationFolder]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in dict.fromkeys(name.partition("/")[0] for name in TRUST):
        newest = _with(evaluations, part)
        figures = {} if newest is None else _figures(newest, part)
        for name in (*TRUST, *TRUST_CONTROLS):
            head, _, key = name.partition("/")
            if head == part and (value := number(figures.get(key))) is not None:
                found[name] = value
    return found


def of_mechanism(run: Run) -> dict[int, dict[str, float]]:
    """Images of a kept checkpoint -> :data:`MECHANISM`; nothing of a run that was not asked."""
    return {
        int(row["images"]): {key: value for key in MECHANISM if isinstance(value := row.get(key), float)}
        for row in stages(run)
        if isinstance(row["images"], int)
    }


def is_gain(key: str) -> bool:
    """``gain``, ``gain_low``, ``gain_CONTROL``, under whatever name stands before the slash."""
    last = key.rpartition("/")[2]
    return last == "gain" or last.startswith("gain_")


def _with(evaluations: Sequence[EvaluationFolder], part: str) -> EvaluationFolder | None:
    """The first that has a part."""
    return next((one for one in evaluations if part in _mapping(one.about.get("parts"))), None)


def _figures(folder: EvaluationFolder, part: str) -> Mapping[str, object]:
    try:
        summary = parse_json(read_bytes(folder.path / names.SUMMARY))
    except (OSError, ValueError, UserError):
        return {}
    return _mapping(nested(summary, part))


def _opened(folder: Path) -> EvaluationFolder | None:
    try:
        return read_evaluation(folder)
    except UserError:  # cut short: evaluated again or not, it is none that counts
        return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
