"""The model by itself: no Lightning, a frozen tower that stays as it is, parts that fit together."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion, model_of
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from tests.builders.tiny import TEXT, UNET

TOKENIZER = ClipTokenizer()

ROOT = Path(__file__).parents[2]
ALONE = """
import sys
import meddiff.models.latent_diffusion
from meddiff.models.sampling import SamplingOptions
from tests.builders.tiny import TEXT, UNET

model = meddiff.models.latent_diffusion.LatentDiffusion.build(UNET, TEXT, sys.argv[1])
images = model.eval().sample(["effusion"], ["a"], 0, SamplingOptions("ddim", 2, 2.0))
assert images.shape == (1, 64, 64, 3), images.shape
of_lightning = lambda: sorted(name for name in sys.modules if name.split(".")[0] in ("lightning", "pytorch_lightning"))
print(of_lightning())
from lightning_modules import LatentDiffusionModule
print(of_lightning())
"""


def test_an_image_is_drawn_without_lightning(vae_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(vae_folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    alone, with_the_room = done.stdout.splitlines()
    assert alone == "[]"
    # the control: the room of Lightning modules does bring it
    assert "'lightning'" in with_the_room


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_tower_stays_in_eval_mode_and_out_of_autograd(frozen: bool) -> None:
    model = LatentDiffusion.build({**UNET, "dropout": 0.1}, TEXT, freeze_text_encoder=frozen).train()
    assert model.unet.training
    assert all(part.training is not frozen for part in model.text_encoder.modules())
    tokens = TOKENIZER.tokenize(["Small effusion."])[0]
    assert model.encode_tokens(tokens).states.requires_grad is not frozen
    model(torch.randn(1, 4, 8, 8), torch.tensor([5]), tokens).square().mean().backward()
    assert all(p.grad is not None for p in model.unet.parameters() if p.requires_grad)
    assert all((p.grad is None) is frozen for p in model.text_encoder.parameters())
    assert {name.split(".")[0] for name, _ in model.trained_parameters()} == {"unet"} | (
        set() if frozen else {"text_encoder"}
    )


def test_parts_are_drawn_from_the_seed_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (LatentDiffusion.build(UNET, TEXT, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_what_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(UserError, match="expects text of width 16"):
        LatentDiffusion.build(UNET, {"width": 24, "heads": 2, "layers": 1})
    model = LatentDiffusion.build(UNET, TEXT)
    with pytest.raises(UserError, match="keeps no EMA"), model.weights(ema=True):
        pass
    with pytest.raises(UserError, match=r"set --model\.vae"):
        model.sample(["effusion"], ["a"], 0)
    with pytest.raises(UserError, match="Linear holds no latent diffusion model"):
        model_of(torch.nn.Linear(1, 1))
