"""The parts of an evaluation under one face: check the settings first, then run. Source: own."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meddiff.evaluation.classifier import ClassifierOptions, evaluate_classifier, load_judge
from meddiff.evaluation.coco import CocoOptions, evaluate_coco
from meddiff.evaluation.diversity import DiversityOptions, choose_prompts, evaluate_diversity
from meddiff.evaluation.fidelity import FidelityOptions, check_fidelity, evaluate_fidelity
from meddiff.evaluation.grounding import GroundingOptions, check_grounding, evaluate_grounding
from meddiff.runs.open_run import Subject


@dataclass(frozen=True)
class Part:
    """One part: ``check`` raises a UserError before anything long begins, ``run`` returns the figures."""

    check: Callable[[Subject, Path, Any], Any]
    run: Callable[[Subject, Path, Any], dict[str, float]]


def _drawn(function: Callable[[Any, Any, Any, Path], dict[str, float]]) -> Callable[[Subject, Path, Any], Any]:
    return lambda subject, out, options: function(subject.module, subject.data.dataset(options.split), options, out)


OPTIONS: dict[str, type] = {
    "grounding": GroundingOptions,
    "fidelity": FidelityOptions,
    "diversity": DiversityOptions,
    "classifier": ClassifierOptions,
    "coco": CocoOptions,
}
RUN: dict[str, Part] = {
    "grounding": Part(check_grounding, evaluate_grounding),
    "fidelity": Part(
        lambda subject, out, options: check_fidelity(subject.data.dataset(options.split), options),
        _drawn(evaluate_fidelity),
    ),
    "diversity": Part(
        lambda subject, out, options: choose_prompts(
            subject.data.dataset(options.split), options.prompts, options.seed
        ),
        _drawn(evaluate_diversity),
    ),
    "classifier": Part(
        lambda subject, out, options: load_judge(options.classifier, subject.module.device), _drawn(evaluate_classifier)
    ),
    "coco": Part(lambda subject, out, options: subject.data.dataset(options.split), evaluate_coco),
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
