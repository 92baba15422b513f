"""Memory of a GPU against the batch, at Stable Diffusion 2's size; and computed against measured at a small one. Source: own.

``python -m benchmarks.memory`` (a minute on a CPU; on a GPU it also measures, named alternative: what is computed.)
"""

import argparse

import torch

from meddiff.cli.plan_numbers import GIB, Training
from meddiff.models.footprint import STABLE_DIFFUSION_2, Precision, footprint

BATCHES = (8, 16, 32, 64, 128)


def table(precision: Precision = "bf16") -> list[str]:
    """Markdown: GiB on each of 16 GPUs."""
    found = footprint(*STABLE_DIFFUSION_2, precision)
    lines = [
        "| text encoder | average | strategy | checkpointing | " + " | ".join(map(str, BATCHES)) + " |",
        "|---|---|---|---|" + "---|" * len(BATCHES),
    ]
    for learnable in (False, True):
        for average in (True, False):
            for sharded in (False, True):
                plan = Training(found, learnable, average, precision != "32", gpus=16, sharded=sharded)
                for checkpointing in (False, True):
                    cells = [f"{plan.memory(batch, checkpointing) / GIB:.0f}" for batch in BATCHES]
                    names = ("learnable" if learnable else "frozen", "yes" if average else "no")
                    kind = ("FSDP2" if sharded else "DDP", "U-Net" if checkpointing else "none")
                    lines.append(f"| {' | '.join((*names, *kind, *cells))} |")
    return lines


def measured(batch: int, checkpointing: bool) -> tuple[float, float]:
    """GiB of one frozen training step on this GPU under bf16, measured (torch's allocator) and computed."""
    from meddiff.models.latent_diffusion import LatentDiffusion

    device = torch.device("cuda")
    plan = Training(footprint(*STABLE_DIFFUSION_2), False, False, half=True, gpus=1, sharded=False)
    model = LatentDiffusion.build(*STABLE_DIFFUSION_2).to(device)
    if checkpointing:
        model.unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(model.unet.parameters(), fused=True)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16):
            noisy, steps = torch.randn(batch, *model.latent_shape, device=device), torch.zeros(batch, device=device)
            loss = model(noisy, steps, torch.zeros(batch, 77, dtype=torch.long, device=device)).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    fixed = sum(value for name, value in plan.fixed().items() if name != "CUDA")
    return torch.cuda.max_memory_allocated() / GIB, (fixed + batch * plan.image(checkpointing)) / GIB


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16, 32], help="measured on a GPU")
    options = parser.parse_args()
    print("\n".join(table()))
    if not torch.cuda.is_available():
        print("\nmeasured: owed (no GPU here)")
        return
    for batch in options.batch:
        for checkpointing in (False, True):
            real, computed = measured(batch, checkpointing)
            how = "checkpointed" if checkpointing else "kept"
            print(f"batch {batch:>3}, {how}: {real:.1f} GiB, computed {computed:.1f}: ratio {real / computed:.2f}")
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
