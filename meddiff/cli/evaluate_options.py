"""The options of the parts of ``lightning evaluate``."""


def option_classes() -> dict[str, type]:
    """Group of options -> its dataclass; imported when a command is parsed, since they bring torch."""
    from meddiff.evaluation.absent import AbsentOptions
    from meddiff.evaluation.alignment_options import AlignmentOptions
    from meddiff.evaluation.classifier import ClassifierOptions
    from meddiff.evaluation.coco import CocoOptions
    from meddiff.evaluation.controls import ControlsOptions
    from meddiff.evaluation.copies import CopiesOptions
    from meddiff.evaluation.coverage import CoverageOptions
    from meddiff.evaluation.diversity import DiversityOptions
    from meddiff.evaluation.fidelity import FidelityOptions
    from meddiff.evaluation.grounding import GroundingOptions
    from meddiff.evaluation.mechanism import MechanismOptions
    from meddiff.evaluation.prototypes import PrototypesOptions
    from meddiff.evaluation.rival_options import RivalsOptions
    from meddiff.evaluation.schedules import SchedulesOptions
    from meddiff.evaluation.shortcut import ShortcutOptions
    from meddiff.evaluation.utility_options import UtilityOptions

    return {
        "grounding": GroundingOptions,
        "fidelity": FidelityOptions,
        "diversity": DiversityOptions,
        "classifier": ClassifierOptions,
        "coverage": CoverageOptions,
        "copies": CopiesOptions,
        "absent": AbsentOptions,
        "alignment": AlignmentOptions,
        "utility": UtilityOptions,
        "coco": CocoOptions,
        "controls": ControlsOptions,
        "mechanism": MechanismOptions,
        "rivals": RivalsOptions,
        "schedules": SchedulesOptions,
        "prototypes": PrototypesOptions,
        "shortcut": ShortcutOptions,
    }
