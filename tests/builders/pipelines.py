"""Pipelines as others publish them: written by diffusers' and transformers' own code, with tiny random parts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tests.builders.tiny import UNET, make_vae

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTokenizer

#: SD1-like: quick_gelu, epsilon, PNDM; SD2-like: gelu, v, DDIM; each with a width of its own.
KINDS: dict[str, dict[str, object]] = {
    "sd1": {
        "width": 24,
        "act": "quick_gelu",
        "scheduler": "PNDMScheduler",
        "prediction_type": "epsilon",
        "pad": "<|endoftext|>",
    },
    "sd2": {"width": 32, "act": "gelu", "scheduler": "DDIMScheduler", "prediction_type": "v_prediction", "pad": "!"},
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def make_pipeline(folder: Path, kind: str = "sd1", seed: int = 0, **unet: object) -> Path:
    """A whole ``StableDiffusionPipeline`` as diffusers saves it (64 px, latents 4 x 8 x 8).

    Args:
        kind: of :data:`KINDS`.
        unet: arguments of the U-Net to replace.
    """
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    says = KINDS[kind]
    width = int(str(unet.get("cross_attention_dim", says["width"])))
    make_vae(folder / "vae", seed=0)
    torch.manual_seed(seed)
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_attention_heads=2,
            num_hidden_layers=2,
            hidden_act=says["act"],
            projection_dim=width,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )
    network = diffusers.UNet2DConditionModel(**{**UNET, "cross_attention_dim": width, **unet})
    scheduler = getattr(diffusers, str(says["scheduler"]))(**BETAS, prediction_type=says["prediction_type"])
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=text,
        tokenizer=clip_tokenizer(str(says["pad"])),
        unet=network,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def clip_tokenizer(pad: str) -> "CLIPTokenizer":
    """CLIP's tokenizer as transformers has it, with the vocabulary that open_clip carries.

    Args:
        pad: the token behind the end: "<|endoftext|>" in Stable Diffusion 1, "!" in 2.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    own = SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    return CLIPTokenizer(
        vocab={renamed.get(name, name): number for name, number in own.encoder.items()},
        merges=list(own.bpe_ranks),
        pad_token=pad,
        model_max_length=77,
    )


def edit_json(file: Path, **values: object) -> None:
    """Change values of a JSON file; None takes one out."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def set_scheduler(folder: Path, kind: str, **values: object) -> None:
    """Write ``scheduler/scheduler_config.json`` of a class, with Stable Diffusion's betas unless told otherwise."""
    content: Mapping[str, object] = {"_class_name": kind, **BETAS, **values}
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(content))


def teach_noise(unet: "UNet2DConditionModel", width: int, steps: int = 120) -> float:
    """Train a U-Net to give back pure noise at the last timestep, as a model that predicts epsilon does; its last loss."""
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(unet.parameters(), lr=3e-3)
    text, loss = torch.zeros(8, 2, width), torch.zeros(())
    for _ in range(steps):
        noise = torch.randn(8, 4, 8, 8)
        loss = (unet(noise, 999, encoder_hidden_states=text).sample - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())
