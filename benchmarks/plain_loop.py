"""The training loop of diffusers' text-to-image script, written anew from what it does, on latents that are already there.

What it does a step (``examples/text_to_image/train_text_to_image.py``): captions are tokenized as samples are fetched; noise
and timesteps are drawn on the device; the tower runs every time; AdamW in its default form; diffusers' own ``EMAModel``; the
loss is read back for its average and again for the progress bar. The autoencoder is left out, as it is in ours; a learnable
tower, which the script has not, joins optimiser and average.
"""

import os
import time
from collections.abc import Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset


class InMemory(Dataset[tuple[Tensor, Tensor]]):
    """Moments and captions as the script would have them, held in memory; tokenized when fetched.

    Args:
        data: a split.
        model: its tokenizer.
    """

    def __init__(self, data: LatentShardsDataset, model: LatentDiffusion) -> None:
        samples = [data[place] for place in range(len(data))]
        self.moments = [torch.from_numpy(sample["latent"].astype("float32")) for sample in samples]
        self.captions = [sample["impression"] for sample in samples]
        self.tokenizer = model.text_encoder.tokenizer

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return self.moments[place], self.tokenizer.tokenize([self.captions[place]])[0][0]


class PlainLoop:
    """One optimiser step at a time.

    Args:
        model: networks of its own; on its device.
        learning_rate: of AdamW.
        decay: of the average.
        half: compute under bfloat16 autocast; the tower, if frozen, is cast as the script casts it.
    """

    def __init__(self, model: LatentDiffusion, learning_rate: float, decay: float, half: bool) -> None:
        self.model, self.half = model.train(), half
        if half and model.freeze_text_encoder:
            model.text_encoder.to(torch.bfloat16)
        self.trained = [parameter for _, parameter in model.trained_parameters()]
        self.optimizer = torch.optim.AdamW(self.trained, lr=learning_rate, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)
        self.average = EMAModel(self.trained, decay)
        self.average.to(model.device)
        self.bar = tqdm(file=open(os.devnull, "w"))  # noqa: SIM115 (as long as the loop)

    def loss(self, latents: Tensor, noise: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Mean squared error of what the U-Net predicts; latents and noise (B, C, h, w), timesteps (B,), tokens (B, L)."""
        schedule = self.model.noise_schedule
        noisy, target = schedule.add_noise(latents, noise, timesteps), schedule.target(latents, noise, timesteps)
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=self.half):
            states = self.model.text_encoder(tokens)
            prediction = self.model.unet(noisy, timesteps, states, return_dict=False)[0]
        return F.mse_loss(prediction.float(), target.float(), reduction="mean")

    def step(self, latents: Tensor, noise: Tensor, timesteps: Tensor, tokens: Tensor) -> float:
        """One step of the optimiser; the loss, read back."""
        loss = self.loss(latents, noise, timesteps, tokens)
        mean = loss.repeat(len(latents)).mean()
        total = mean.item()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.average.step(self.trained)
        self.bar.update(1)
        self.bar.set_postfix(step_loss=loss.detach().item(), lr=self.schedule.get_last_lr()[0])
        return total

    def run(self, data: InMemory, batch_size: int, steps: int, scale: float = 0.18215) -> float:
        """Seconds a step, over ``steps``."""
        device = self.model.device
        begun = clock(device)
        for moments, tokens in islice(endless(data, batch_size), steps):
            mean, log_variance = moments.to(device).chunk(2, dim=1)
            latents = (mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * torch.randn_like(mean)) * scale
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, 1000, (len(latents),), device=device)
            self.step(latents, noise, timesteps, tokens.to(device))
        return (clock(device) - begun) / steps


def endless(data: InMemory, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches, epoch after epoch."""
    while True:
        yield from DataLoader(data, batch_size, shuffle=True, drop_last=True)


def clock(device: torch.device) -> float:
    """Seconds on a clock, once a GPU has done what is queued; on a CPU the processor time of this process.

    Other work on the machine stretches time by the wall, and unevenly; of processor time it takes none.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()
