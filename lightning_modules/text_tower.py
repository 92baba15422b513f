"""The text tower of the embedded cohort, trained on text alone: the language comes before the pictures, as it did for
Stable Diffusion's."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_modules.guarded import GuardedModule
from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.common.ranges import COUNT_OR_NONE, NOT_NEGATIVE, POSITIVE, check_ranges
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.clip_tower import ClipTower
from meddiff.models.text.language_heads import UNASKED, LanguageHeads, Questions, Text, TextBatch, questions
from meddiff.models.weights.clip_folder import write_clip_folder
from meddiff.models.weights.sources import Config

ASKED = ("finding", "denied", "side", "severity")


class _Texts(Protocol):
    """What the data module knows of the language: every text that is read."""

    texts: list[Text]


@dataclass(frozen=True)
class TokenTexts:
    """Texts on their way to the device: ``tokens`` (B, L) int64 and what is asked of them."""

    key: list[str]
    tokens: Tensor
    asked: Questions


class TextTowerModule(GuardedModule):
    """A CLIP text tower that learns a language of reports before it meets a U-Net.

    At every token of a word that names a finding a linear reading of its state has to say which finding it is, whether it is
    there or denied, on which side and how severe; at the end token, which findings the text asserts; and at every token
    (weight ``language_modelling``) which token follows. At the end of a fit ``RUN/tower`` holds the tower, with the embeddings
    of those tokens that its texts use, and ``held_out.json`` what it reads out of texts it has not seen.

    Source: own.

    Args:
        text_encoder: arguments of :class:`meddiff.models.text.clip_tower.ClipTower`, for random weights.
        classes: findings that can be named, over all domains.
        learning_rate: peak rate of AdamW; cosine to zero over the run.
        warmup_steps: steps over which it rises.
        weight_decay: AdamW's.
        language_modelling: weight of predicting the next token; 0 leaves it out.

    Raises:
        UserError: a number that is not finite or out of its range, or a tower that is no CLIP tower.
    """

    def __init__(
        self,
        text_encoder: Config,
        classes: int = 16,
        learning_rate: float = 2e-3,
        warmup_steps: int = 100,
        weight_decay: float = 0.01,
        language_modelling: float = 1.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.config, self.classes, self.learning_rate = text_encoder, classes, learning_rate
        self.warmup_steps, self.weight_decay = warmup_steps, weight_decay
        self.language_modelling = language_modelling
        check_ranges(
            "text tower",
            self,
            learning_rate=POSITIVE,
            warmup_steps=COUNT_OR_NONE,
            weight_decay=NOT_NEGATIVE,
            language_modelling=NOT_NEGATIVE,
        )
        self.right = nn.ModuleDict({name: MeanMetric() for name in (*ASKED, "labels")})

    def configure_model(self) -> None:
        """Build tower and heads from the run's seed."""
        if hasattr(self, "tower"):
            return
        tower = build_text_encoder(self.config)
        if not isinstance(tower, ClipTower):
            raise UserError("text tower: text_encoder must be a CLIP tower (width, heads, layers, ...).")
        self.tower, self.heads = tower, LanguageHeads(tower.width, self.classes)

    def on_fit_start(self) -> None:
        """The tokens of the language: only between these is a next one chosen, and only they are stored."""
        texts = cast(_Texts, self.trainer.datamodule).texts  # type: ignore[attr-defined]
        self.vocabulary = self.used(one.caption for one in texts).to(self.device)
        self.number = torch.full((self.tower.token_table.num_embeddings,), UNASKED, device=self.device)
        self.number[self.vocabulary] = torch.arange(len(self.vocabulary), device=self.device)

    def used(self, texts: Iterable[str]) -> Tensor:
        """(V,) sorted ids of the tokens of these texts, special ones and padding among them."""
        tokenizer = self.tower.tokenizer
        ids = {tokenizer.pad_id, *tokenizer.ids("")}
        return torch.tensor(sorted(ids.union(*(tokenizer.ids(text) for text in texts))))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW under a one-cycle cosine over ``trainer.max_steps``."""
        steps = self.trainer.max_steps
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.learning_rate,
            total_steps=steps + 1,
            pct_start=min(0.5, (self.warmup_steps + 1) / (steps + 1)),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_batch_transfer(self, batch: TextBatch, dataloader_idx: int) -> TokenTexts:
        """Tokens and questions, made on the host."""
        tokenizer, texts = self.tower.tokenizer, batch["caption"]
        longest = max(tokenizer.length(text) for text in texts)
        tokens = tokenizer.tokenize(texts)[0][:, :longest]  # a causal tower's padding changes nothing before it
        return TokenTexts(batch["key"], tokens, questions(tokenizer, texts, batch["named"], self.classes, longest))

    def transfer_batch_to_device(self, batch: TokenTexts, device: torch.device, dataloader_idx: int) -> TokenTexts:
        return TokenTexts(batch.key, batch.tokens.to(device), batch.asked.to(device))

    def training_step(self, batch: TokenTexts, batch_idx: int) -> Tensor:
        """The sum of what is asked."""
        states, asked = self.tower(batch.tokens), batch.asked  # (B, L, D)
        flat = states.flatten(0, 1)  # (B L, D)
        losses = {
            name: F.cross_entropy(logits, target, ignore_index=UNASKED)
            for name, logits, target in self._readings(flat, asked)
            if bool((target != UNASKED).any())
        }
        losses["labels"] = F.binary_cross_entropy_with_logits(self.heads.labels(flat[asked.ends]), asked.labels)
        loss = torch.stack(list(losses.values())).sum()
        if self.language_modelling:
            losses["next"] = self._next_token_loss(states, batch.tokens)
            loss = loss + self.language_modelling * losses["next"]
        named = {f"train/loss_{name}": value for name, value in losses.items()}
        self.log_dict({"train/loss": loss, **named}, batch_size=len(batch.key))
        return self.watched(loss, batch.key)

    def _next_token_loss(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Cross entropy of every token behind the first, up to the end token: states (B, L, D), tokens (B, L) -> ()."""
        follows = self.number[tokens[:, 1:]]  # (B, L - 1), numbers in the vocabulary
        follows = follows.masked_fill(~self.tower.tokenizer.mask(tokens)[:, 1:], UNASKED)
        kept = follows != UNASKED  # padding asks nothing, and is most of a batch
        logits = self.heads.next_tokens(states[:, :-1][kept], self.tower.token_table.weight[self.vocabulary])  # (N, V)
        return F.cross_entropy(logits, follows[kept])

    def validation_step(self, batch: TokenTexts, batch_idx: int) -> None:
        """Shares of right readings of texts that were not read: at names, and of each label at the end token."""
        flat, asked = self.tower(batch.tokens).flatten(0, 1), batch.asked
        for name, logits, target in self._readings(flat, asked):
            wanted = target != UNASKED
            self._count(name, (logits.argmax(dim=-1) == target)[wanted].float())
        said = self.heads.labels(flat[asked.ends]) > 0
        self._count("labels", (said == asked.labels.bool()).float())

    def _readings(self, flat: Tensor, asked: Questions) -> Iterable[tuple[str, Tensor, Tensor]]:
        """Name, logits (M, K) and target (M,) of every question at names; flat (B L, D)."""
        return zip(ASKED, self.heads.at_names(flat[asked.places]), asked.targets.T, strict=True)

    def _count(self, name: str, right: Tensor) -> None:
        metric = self.right[name]
        assert isinstance(metric, MeanMetric)
        metric.update(right)
        self.log(f"val/{name}", metric)

    def on_fit_end(self) -> None:
        """Write ``RUN/tower``."""
        if not self.trainer.is_global_zero or getattr(self.trainer, "fast_dev_run", False):
            return
        folder = Path(self.trainer.default_root_dir) / "tower"
        state = self.tower.state_dict()
        write_clip_folder(state, self.tower.config, folder / "text_encoder", self.vocabulary.cpu(), half=True)
        facts = {k: round(float(v), 4) for k, v in self.trainer.callback_metrics.items() if k.startswith("val/")}
        write_json(folder / "held_out.json", {"read": len(cast(_Texts, self.trainer.datamodule).texts), **facts})  # type: ignore[attr-defined]
