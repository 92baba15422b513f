"""What Lightning and W&B say at every start although nothing is wrong, and what the suite says itself. Source: own."""

import logging
import warnings

EXPECTED_WARNINGS = (
    r".*LeafSpec.* is deprecated.*",
    r"Found \d+ module\(s\) in eval mode at the start of training.*",  # the frozen text tower
    r".*does not have many workers which may be a bottleneck.*",
    r"You have overridden `(on_before_batch_transfer|transfer_batch_to_device)`.*",
    r"The dirpath has changed from .*",  # a checkpoint of another run
    r"Checkpoint directory .* exists and is not empty.*",  # a run that goes on in its own folder
)
#: ... and what it says where nothing is trained: evaluations and checkpoints are not needed to draw.
EXPECTED_WITHOUT_TRAINING = (r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint.*",)
#: Beginnings of lines: the device, the parts and the end are told in the suite's own (:mod:`callbacks.model_summary`).
UNSAID = (
    "GPU available:",
    "TPU available:",
    "Seed set to",
    "`Trainer.fit` stopped:",
    "Trainer already configured with model summary callbacks",
)
LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
)


def hush(training: bool) -> None:
    """Leave out what is expected; everything else is said.

    Args:
        training: whether something is trained.
    """
    for pattern in EXPECTED_WARNINGS + (() if training else EXPECTED_WITHOUT_TRAINING):
        warnings.filterwarnings("ignore", pattern)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if _is_wanted not in logger.filters:
            logger.addFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    said = record.getMessage()
    return "Tip:" not in said and not said.startswith(UNSAID)
