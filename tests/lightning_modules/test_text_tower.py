"""A tower that learns a language from text alone: it learns, it is written, it goes on exactly; the one that ships knows it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from callbacks.export import ModelExport
from datamodules import LatentShardsDataModule, PhantomTextsDataModule
from datamodules.phantom_texts import CLASSES, write_texts
from lightning_modules import LatentDiffusionModule, TextTowerModule
from meddiff.common.errors import UserError
from meddiff.common.places import locate
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.language_heads import SEVERITIES, UNASKED, Text, questions
from meddiff.models.text.tower import TextTower
from meddiff.models.weights.token_rows import ROW_IDS
from tests.builders.tiny import UNET, make_shards, make_vae, quiet_trainer

TOWER = {"width": 32, "heads": 2, "layers": 1, "embedding_std": 0.5, "position_std": 0.1}


def data(**numbers: int) -> PhantomTextsDataModule:
    return PhantomTextsDataModule(**{"chest": 400, "shapes": 0, "held_out": 60, "batch_size": 16, **numbers})


def trained(folder: Path, steps: int, numbers: dict[str, int] | None = None, **options: float) -> TextTowerModule:
    torch.manual_seed(0)
    module = TextTowerModule(TOWER, learning_rate=5e-3, warmup_steps=10, **options)
    quiet_trainer(folder, steps, val_check_interval=steps).fit(module, datamodule=data(**numbers or {}))
    return module


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTowerModule, Path]:
    folder = tmp_path_factory.mktemp("tower")
    return trained(folder, 150), folder


@torch.no_grad()
def right(module: TextTowerModule, texts: list[Text]) -> dict[str, float]:
    """Shares of right readings at the names of texts."""
    tokenizer = module.tower.tokenizer
    longest = max(tokenizer.length(one.caption) for one in texts)
    asked = questions(tokenizer, [one.caption for one in texts], [one.named for one in texts], CLASSES, longest)
    states = module.tower(tokenizer.tokenize([one.caption for one in texts])[0][:, :longest]).flatten(0, 1)
    shares = {}
    for name, logits, target in module._readings(states, asked):
        wanted = target != UNASKED
        shares[name] = float((logits.argmax(-1) == target)[wanted].float().mean())
    return shares


def test_it_reads_texts_it_has_not_seen(learned: tuple[TextTowerModule, Path]) -> None:
    unread = write_texts("chest", 100, 5, lambda _: None)
    knows = right(learned[0], unread)
    torch.manual_seed(1)
    other = TextTowerModule(TOWER)
    other.configure_model()
    knows_not = right(other, unread)
    assert knows["finding"] > 0.85
    assert knows["denied"] > 0.75
    assert knows_not["finding"] < 0.4
    assert knows["denied"] > knows_not["denied"] + 0.1
    assert knows["severity"] > knows_not["severity"] + 0.1


def test_who_has_read_of_shapes_alone_knows_no_finding(tmp_path: Path) -> None:
    module = trained(tmp_path, 60, {"chest": 0, "shapes": 400})
    assert right(module, write_texts("shapes", 60, 5, lambda _: None))["finding"] > 0.6
    assert right(module, write_texts("chest", 60, 5, lambda _: None))["finding"] < 0.1  # they are classes of their own


def test_what_is_written_is_the_tower_with_the_tokens_of_its_language(learned: tuple[TextTowerModule, Path]) -> None:
    module, folder = learned
    again = build_text_encoder(str(folder / "tower"))
    tokens, _ = again.tokenizer.tokenize(["No edema. Large right pleural effusion.", "Mild left basilar atelectasis."])
    torch.testing.assert_close(again(tokens), module.tower(tokens), rtol=2e-2, atol=2e-2)
    assert (folder / "tower" / "text_encoder" / "model.safetensors").stat().st_size < 2**20
    assert json.loads((folder / "tower" / "held_out.json").read_text())["val/finding"] > 0.85


def test_a_training_that_was_stopped_goes_on_with_the_same_texts(tmp_path: Path) -> None:
    def run(folder: Path, steps: int, ckpt: Path | None = None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        module = TextTowerModule(TOWER)
        trainer = quiet_trainer(folder, steps)
        module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.1)  # the cosine knows the end
        trainer.fit(module, datamodule=data(chest=40, held_out=4, batch_size=8), ckpt_path=ckpt)
        trainer.save_checkpoint(folder / "last.ckpt")
        return {name: value.clone() for name, value in module.state_dict().items()}

    whole = run(tmp_path / "whole", 8)
    half = run(tmp_path / "half", 4)
    rest = run(tmp_path / "half", 8, tmp_path / "half" / "last.ckpt")
    for name, value in whole.items():
        torch.testing.assert_close(rest[name], value, rtol=1e-5, atol=1e-6)
    assert any((half[name] - whole[name]).abs().max() > 1e-3 for name in whole)


def test_the_next_token_is_learned_and_can_be_left_out(learned: tuple[TextTowerModule, Path], tmp_path: Path) -> None:
    assert float(learned[0].trainer.callback_metrics["train/loss_next"]) < 4.0  # of about 250 tokens: 5.5 is chance
    without = trained(tmp_path, 2, {"chest": 40, "held_out": 4}, language_modelling=0.0).trainer.callback_metrics
    assert "train/loss_next" not in without
    assert "train/loss_finding" in without


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PhantomTextsDataModule(chest=0, shapes=0), "nothing to read"),
        (lambda: PhantomTextsDataModule(chest=-1), "chest"),
        (lambda: TextTowerModule(TOWER, learning_rate=float("nan")), "learning_rate"),
        (lambda: TextTowerModule(TOWER, language_modelling=-1.0), "language_modelling"),
    ],
)
def test_wrong_numbers_are_named(make, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()


@torch.no_grad()
def severities(tower: TextTower, texts: list[Text]) -> tuple[Tensor, Tensor]:
    """States at the words of findings that are there, and how severe they are."""
    captions, named = [one.caption for one in texts], [one.named for one in texts]
    longest = max(tower.tokenizer.length(one) for one in captions)
    asked = questions(tower.tokenizer, captions, named, CLASSES, longest)
    states = tower(tower.tokenizer.tokenize(captions)[0][:, :longest]).flatten(0, 1)[asked.places]
    kept = asked.targets[:, 3] != UNASKED
    return states[kept], asked.targets[kept, 3]


def read_linearly(tower: TextTower, fit: list[Text], test: list[Text]) -> float:
    """Share of right severities that a ridge regression on the states at the words finds in other texts."""
    x, y = severities(tower, fit)
    wanted = torch.eye(len(SEVERITIES))[y]
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    weights = torch.linalg.solve(x.T @ x + 1e-2 * torch.eye(x.shape[1]), x.T @ wanted)
    x, y = severities(tower, test)
    return float(((torch.cat([x, torch.ones(len(x), 1)], dim=1) @ weights).argmax(1) == y).float().mean())


def test_the_tower_that_ships_knows_what_stands_before_a_word() -> None:
    fit, test = (write_texts("chest", number, seed, lambda _: None) for number, seed in ((600, 31), (200, 32)))
    shipped = build_text_encoder("assets/phantom_tower")
    torch.manual_seed(0)
    drawn = build_text_encoder({name: shipped.config[name] for name in (*TOWER,)})
    knows, knows_not = read_linearly(shipped, fit, test), read_linearly(drawn, fit, test)
    assert knows > 0.93
    assert knows_not < knows - 0.08
    said = json.loads((locate("assets/phantom_tower") / "held_out.json").read_text())
    assert said["val/finding"] > 0.99
    size = sum(file.stat().st_size for file in locate("assets/phantom_tower").rglob("*") if file.is_file())
    assert size < 4 * 2**20


def test_rows_that_a_tower_came_with_are_written_again(tmp_path: Path) -> None:
    """A frozen tower must leave a training of another language as it came, words that no caption used included."""
    module = LatentDiffusionModule(
        {**UNET, "cross_attention_dim": 96}, "assets/phantom_tower", freeze_text_encoder=True, ema_decay=None
    )
    shards = make_shards(tmp_path / "shards", make_vae(tmp_path / "vae", 0), n=24)
    trainer = quiet_trainer(tmp_path, 1, callbacks=[ModelExport(seen_rows_only=True)])
    trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=2))
    name = "text_encoder/model.safetensors"
    before, after = load_file(locate("assets/phantom_tower") / name), load_file(tmp_path / "model" / name)
    kept = {int(one) for one in before[ROW_IDS]}
    assert kept <= {int(one) for one in after[ROW_IDS]}
    # those of no file too, whose spread a tower of this language has for itself
    again, came = (
        build_text_encoder(one).token_table.weight for one in (str(tmp_path / "model"), "assets/phantom_tower")
    )
    assert again[sorted(kept)].equal(came[sorted(kept)])
    assert again.equal(came)
