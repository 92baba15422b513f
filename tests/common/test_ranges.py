"""Numbers that are not finite or out of their range: one sentence, wherever they are given."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules import LatentShardsDataModule
from datamodules.phantom_images import PhantomImagesDataModule
from lightning_modules import AutoencoderModule, DomainClassifierModule, LatentDiffusionModule
from meddiff.common.errors import UserError
from meddiff.evaluation.classifier import ClassifierOptions
from meddiff.evaluation.coco import CocoOptions
from meddiff.evaluation.controls import ControlsOptions
from meddiff.evaluation.diversity import DiversityOptions
from meddiff.evaluation.fidelity import FidelityOptions
from meddiff.evaluation.grounding import GroundingOptions
from meddiff.models.sampling import SamplingOptions
from meddiff.phantoms import PhantomOptions
from meddiff.preparation.cohorts.folder import FolderOptions
from meddiff.preparation.prepare_cohort import read_cohort
from tests.builders.command import call, write_fit
from tests.builders.tiny import TEXT, UNET

#: Flags of `fit` and the name that the sentence begins with.
FLAGS = [
    ("--model.learning_rate", ".nan"),
    ("--model.learning_rate", ".inf"),
    ("--model.learning_rate", "-1e-4"),
    ("--model.weight_decay", "-0.1"),
    ("--model.warmup_steps", "-3"),
    ("--model.min_snr_gamma", "0"),
    ("--model.min_snr_gamma", ".nan"),
    ("--model.caption_dropout", ".nan"),
    ("--model.ema_decay", ".nan"),
    ("--model.ema_decay", "1"),
    ("--model.sampling.guidance_scale", ".nan"),
    ("--model.sampling.guidance_scale", "-2"),
    ("--model.sampling.steps", "0"),
    ("--model.unet.dropout", ".nan"),
    ("--trainer.gradient_clip_val", ".nan"),
    ("--trainer.gradient_clip_val", "-1"),
    ("--data.batch_size", "0"),
    ("--data.num_workers", "-1"),
]


@pytest.mark.parametrize(("flag", "value"), FLAGS)
def test_the_command_refuses_it_before_it_starts(
    shards: Path, vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    config = str(write_fit(tmp_path / "fit.yaml", shards, vae_folder))
    code, _, err = call(capsys, "fit", "-c", config, f"{flag}={value}")
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert code == 2
    assert f"{flag.rsplit('.', 1)[1]} is " in line
    assert "must" in line
    assert not (tmp_path / "runs").exists()


MODULE: dict[str, object] = {"unet": UNET, "text_encoder": TEXT}
ELSEWHERE: list[tuple[Callable[..., object], dict[str, object]]] = [
    (SamplingOptions, {"guidance_scale": math.inf}),
    (SamplingOptions, {"guidance_scale": math.nan}),
    (LatentDiffusionModule, {**MODULE, "learning_rate": math.nan}),
    (LatentDiffusionModule, {**MODULE, "freeze_text_encoder": False, "text_encoder_learning_rate": -1.0}),
    (LatentDiffusionModule, {**MODULE, "text_encoder": TEXT | {"embedding_std": math.nan}}),
    (AutoencoderModule, {"vae": {}, "kl_weight": math.nan}),
    (AutoencoderModule, {"vae": {}, "learning_rate": 0.0}),
    (DomainClassifierModule, {"network": {}, "label_smoothing": 1.5}),
    (DomainClassifierModule, {"network": {"drop_rate": math.nan}}),
    (LatentShardsDataModule, {"shards": "nowhere", "epoch_size": -1}),
    (PhantomImagesDataModule, {"val_images": 0}),
    (FidelityOptions, {"batch_size": 0}),
    (GroundingOptions, {"timesteps": 41}),
    (GroundingOptions, {"samples": -2}),
    (CocoOptions, {"captioned": -1}),
    (ControlsOptions, {"samples": 0}),
    (DiversityOptions, {"batch_size": -1}),
    (ClassifierOptions, {"batch_size": 0}),
    (PhantomOptions, {"val": math.nan}),
    (PhantomOptions, {"fidelity": math.inf}),
]


@pytest.mark.parametrize(("kind", "arguments"), ELSEWHERE)
def test_so_does_each_class(kind: Callable[..., object], arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"(is|=) -?[0-9.nainf]+; it must"):
        kind(**arguments)


def test_a_cohort_is_not_read_with_shares_that_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder: fidelity is nan; it must be a finite number"):
        read_cohort("folder", tmp_path, FolderOptions(fidelity=math.nan))


def test_drawing_refuses_guidance_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "sample", "--ckpt", "nowhere", "--prompts", "Edema.", "--guidance_scale", ".nan")
    assert code == 2
    assert "--guidance_scale is nan; it must lie in [0, 1,000]." in err


def test_what_is_usual_passes() -> None:
    LatentDiffusionModule(
        unet=UNET, text_encoder=TEXT, learning_rate=0.0, min_snr_gamma=5, ema_decay=None, warmup_steps=0
    )
    SamplingOptions("dpm++", 25, 0.0)
    PhantomOptions(val=20, grounding=0.1)
