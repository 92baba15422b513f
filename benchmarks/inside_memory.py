"""Peak memory of the tools that look inside: Stable Diffusion 2's U-Net and tower with random weights, batch 1. Source: own.

``python -m benchmarks.inside_memory --latent 64`` prints a line after each tool: the most
memory that the process has held so far (resident on a CPU, torch's allocator on a GPU). Cross-attention has sixteen layers;
self-attention stays fused but in relevance, which needs its gradients. With ``--count`` nothing is computed: passes forward and
back run on torch's meta device, and the bytes of all tensors alive at once are added up, weights among them. That leaves out
what a kernel takes for itself, and counts fused attention as if it were not, since the meta device has none.
"""

import argparse
import math
import resource
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from meddiff.attribution import df_cam as cam
from meddiff.attribution import relevance as token_relevance
from meddiff.attribution.baselines import centre_prior
from meddiff.attribution.cam_targets import Asking, Logit, Target, asking
from meddiff.attribution.concepts import ConceptMode, encode_concepts
from meddiff.attribution.df_cam import CamOptions, df_cam, find_layers, watched
from meddiff.attribution.df_rise import DfRiseOptions, df_rise
from meddiff.attribution.games import GameOptions, play
from meddiff.attribution.recorder import CrossAttentionRecorder, EachLayer
from meddiff.attribution.relevance import relevance
from meddiff.attribution.relevance_capture import attention_gradients
from meddiff.attribution.token_roles import word_groups
from meddiff.attribution.trajectory import Trajectory, generate
from meddiff.attribution.views import view
from meddiff.models.autoencoder import FrozenAutoencoder
from meddiff.models.footprint import STABLE_DIFFUSION_2
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule

GIB = 2**30
TEXT = "large right pleural effusion with a small pneumothorax"
TOOLS = ("attention", "df_rise", "games", "cam", "relevance", "classifier")
#: Masks, chunks and rows at once of the tools that only ask forwards: more of them take longer, not more memory.
FEW = 2
FORWARD = ("df_rise", "games")
VAE: dict[str, object] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
}


def filled(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A network from the meta device with a million normal numbers over and over: as good for memory, and there at once."""
    network = network.to(dtype)
    if device.type == "meta":
        return network.eval().requires_grad_(False)
    network = network.to_empty(device=device)
    block = 0.02 * torch.randn(2**20, device=device, dtype=dtype)
    with torch.no_grad():
        for part in network.modules():
            for name, value in part.named_parameters(recurse=False):
                if isinstance(part, nn.GroupNorm | nn.LayerNorm):
                    value.fill_(float(name == "weight"))
                else:
                    value.copy_(block.repeat(math.ceil(value.numel() / len(block)))[: value.numel()].view_as(value))
    return network.eval().requires_grad_(False)


def build(latent: int, device: torch.device, dtype: torch.dtype) -> LatentDiffusion:
    """The model, for latents of ``latent`` x ``latent``."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from meddiff.models.text.clip_tower import ClipTower

    unet, text = STABLE_DIFFUSION_2
    with torch.device("meta"):
        network, vae = UNet2DConditionModel(**{**unet, "sample_size": latent}), AutoencoderKL(**VAE)
    tower = ClipTower(**text).eval()  # its causal mask is no parameter, so it is drawn in full
    model = LatentDiffusion(
        filled(network, device, dtype), tower.to(device, dtype), NoiseSchedule("v_prediction").to(device)
    )
    autoencoder = FrozenAutoencoder(None)
    autoencoder._network = filled(vae, device, dtype)
    model.autoencoder = autoencoder
    return model.eval()


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are alive; ``peak`` is the most of them at once."""

    def __init__(self, weights: int) -> None:
        super().__init__()
        self.alive = self.peak = weights
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation and look at what came out."""
        output = func(*args, **(kwargs or {}))
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for one in tree_leaves(output):
            storage = one.untyped_storage() if isinstance(one, Tensor) else None
            if storage is None or id(storage) in self._known or id(storage) in given:
                continue
            self._known.add(id(storage))
            self.alive += storage.nbytes()
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._gone, id(storage), storage.nbytes())
        return output

    def _gone(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.alive -= size


@torch.no_grad()
def look(model: LatentDiffusion, groups: Tensor, path: Trajectory, mode: ConceptMode) -> Tensor:
    """Maps of words and of two concepts in every layer at one step; those of the concepts."""
    text, concepts = model.encode_texts([TEXT]), encode_concepts(model, ["pacemaker", "a chest tube"], mode)
    with CrossAttentionRecorder(model.unet, EachLayer(), concepts, EachLayer()) as recorder:
        recorder.groups = groups[None].to(model.device)
        noisy = path.noisy.to(model.device, text.states.dtype)
        model.unet(noisy, path.timesteps.to(model.device), **text.arguments())
        recorder.take(noisy.shape[-2:])
    return recorder.concept_maps


def counted(tool: str, latent: int, dtype: torch.dtype) -> float:
    """GiB alive at once in the largest pass of a tool, one step, batch 1."""
    device = torch.device("meta")
    model = build(latent, device, dtype)
    parts = [model, model.vae] if tool == "classifier" else [model]
    weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    shape = (1, 4, latent, latent)
    empty = torch.zeros(shape, device=device)
    path = Trajectory("a", TEXT, 7.5, torch.tensor([500]), torch.tensor([-1]), *[torch.zeros(shape)] * 5)
    begins = Asking(torch.zeros(1, device=device), empty, empty)
    with (
        patch.object(cam, "check_same_weights"),  # numbers are not there to be compared
        patch.object(token_relevance, "check_same_weights"),
        patch.object(torch, "autocast", lambda *_, **__: nullcontext()),  # knows no meta device
        LiveBytes(weights) as live,
    ):
        text = model.encode_texts([TEXT, ""])
        if tool in FORWARD:
            with torch.no_grad():
                two = torch.zeros(FEW, *shape[1:], device=device)
                text = text.take(torch.zeros(FEW, dtype=torch.long, device=device))
                model.unet(two, torch.full((FEW,), 500, device=device), **text.arguments())
        elif tool == "attention":
            look(model, torch.zeros(8, 77, device=device), path, "substitute")
        elif tool == "cam":
            with watched(model.unet, find_layers(model.unet, CamOptions().layers)) as features:
                cam._backward(model, path, begins, text, CamOptions(), features)
        elif tool == "relevance":
            with torch.enable_grad(), attention_gradients(model.unet):
                one = text.take(torch.zeros(1, dtype=torch.long, device=device))
                token_relevance._backward(model, path, empty, one)
        else:
            asking(model, path, Target("classifier", logit=effusion(device)))
    return live.peak / GIB


def effusion(device: torch.device) -> Logit:
    """A logit of torchxrayvision's network, drawn."""
    from meddiff.models.xrv import DENSENET_121, XRV_SIDE, build_classifier, default_pathologies

    network = build_classifier(DENSENET_121, default_pathologies()).eval().requires_grad_(False)
    return Logit(network.to(device), "Effusion", XRV_SIDE)


def run(tool: str, model: LatentDiffusion, path: Trajectory) -> Tensor:
    """The maps of one tool at one step."""
    groups = word_groups(model.text_encoder.tokenizer, TEXT)[1]
    if tool == "attention":
        return torch.cat([look(model, groups, path, mode).cpu() for mode in ("append", "substitute", "output")])
    if tool == "df_rise":
        return df_rise(model, path, DfRiseOptions(masks=FEW, batch_size=FEW))
    if tool == "games":
        height, width = path.noisy.shape[-2:]
        middle = {"middle": centre_prior((height, width), len(path))}
        return play(model, path, middle, view(model, "latent"), GameOptions(FEW, batch_size=FEW))["middle"].deletion
    if tool == "relevance":
        return relevance(model, path, groups).maps
    if tool == "cam":
        return df_cam(model, path).maps
    return df_cam(model, path, target=Target("classifier", logit=effusion(model.device))).maps


def peak(device: torch.device) -> float:
    """GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB


def main() -> None:
    """Print a line a tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS[:-1])
    parser.add_argument("--count", action="store_true", help="add up bytes, compute nothing")
    options = parser.parse_args()
    if options.count:
        for tool in options.tools:
            print(
                f"{tool}: {counted(tool, options.latent, getattr(torch, options.dtype)):.2f} GiB alive at once",
                flush=True,
            )
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = build(options.latent, device, getattr(torch, options.dtype))
    print(f"weights: {peak(device):.1f} GiB", flush=True)
    start = time.monotonic()
    path = generate(model, [TEXT], (500,), ["a"])[0]
    print(f"one step of a path: {peak(device):.1f} GiB, {time.monotonic() - start:.0f} s", flush=True)
    for tool in options.tools:
        start = time.monotonic()
        found = run(tool, model, path)
        shape, whole = " x ".join(map(str, found.shape)), "finite" if bool(found.isfinite().all()) else "NOT FINITE"
        print(f"{tool}: {peak(device):.1f} GiB, {time.monotonic() - start:.0f} s, maps {shape}, {whole}", flush=True)


if __name__ == "__main__":
    main()
