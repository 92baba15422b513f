"""How a latent diffusion module is optimised: what trains at which rate, and for how long."""

import math
from typing import Any

import torch


class Optimises:
    """Mixin of :class:`LatentDiffusionModule`: AdamW over the U-Net and a learnable text tower.

    Expects ``unet``, ``text_encoder``, ``h``, ``device``, ``trainer`` and ``lr_schedulers``.
    """

    unet: Any
    text_encoder: Any
    h: Any
    device: torch.device
    trainer: Any
    lr_schedulers: Any

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The U-Net, and a learnable text tower at its own rate."""
        h = self.h
        groups = [{"name": "unet", "params": list(self.unet.parameters()), "lr": h.learning_rate}]
        if not h.freeze_text_encoder:
            rate = h.learning_rate if h.text_encoder_learning_rate is None else h.text_encoder_learning_rate
            groups.append({"name": "text_encoder", "params": list(self.text_encoder.parameters()), "lr": rate})
        return groups

    def configure_optimizers(self) -> Any:
        """AdamW; a linear warm-up, then constant rates or a cosine to zero."""
        h = self.h
        # A fused step unscales gradients itself, which Lightning forbids together with clipping under fp16.
        clips_under_fp16 = self.trainer.precision == "16-mixed" and self.trainer.gradient_clip_val is not None
        fused = self.device.type in ("cuda", "cpu") and not clips_under_fp16
        optimizer = torch.optim.AdamW(self.parameter_groups(), weight_decay=h.weight_decay, fused=fused)
        warmup, total = max(1, h.warmup_steps), self.trainer.max_steps

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / warmup)
            fall = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total)))
            return rise * fall if h.learning_rate_schedule == "cosine" else rise

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """What the user says now wins over the rates and decay that a checkpoint's optimiser state brought back."""
        schedule: Any = self.lr_schedulers()
        for i, ours in enumerate(self.parameter_groups()):
            group = schedule.optimizer.param_groups[i]
            schedule.base_lrs[i] = group["initial_lr"] = ours["lr"]
            group["lr"] = ours["lr"] * schedule.lr_lambdas[i](schedule.last_epoch)
            group["weight_decay"] = self.h.weight_decay
