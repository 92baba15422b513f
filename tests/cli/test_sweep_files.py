"""Every grid point of every file in sweeps/ is taken by the command, with the words that W&B's own agent gives it."""

import contextlib
import sys
from pathlib import Path

import pytest
from lightning.pytorch import LightningDataModule, LightningModule

from meddiff.cli.arguments import expand, read_yaml
from meddiff.cli.lightning_cli import CLI_OPTIONS, SuiteCLI
from meddiff.cli.sweep_settings import Checker, SettingsCLI
from meddiff.launch.command import argv
from meddiff.launch.parameters import Parameter, Values
from meddiff.launch.search import axes, grid
from meddiff.launch.sweep_file import SweepFile, read_sweep_file
from meddiff.launch.sweep_folder import settings_to_try

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
EXPECTED = {
    "freezing": 6, "prompt_variability": 9, "tradeoff": 18, "quickstart_tradeoff": 18, "pareto": None,
    "phantom_tradeoff": 40, "phantom_tradeoff_long": 40, "phantom_rates": 20, "phantom_texts": 20,
    "phantom_confounders": 20, "phantom_language": 20, "patronus": 36, "patronus_shortcut": 12,
    "patronus_latent": 6,
}  # fmt: skip
#: What sentences about weights, shards and GPUs of the paper's configs begin with: they are not on this machine.
NOT_HERE = (
    "trainer: the configuration asks for", "unet: no weights", "no latent shards", "splits_from.grounding: no latent",
    "No weights at weights/",
)  # fmt: skip


def settings(sweep: SweepFile) -> list[Values]:
    """The grid; of a search with distributions its ends."""
    return list(grid(sweep.parameters)) if sweep.method == "grid" else settings_to_try(sweep.parameters)


def words_of_the_agent(sweep: SweepFile, values: Values, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """What W&B's agent would start for a run of these values."""
    from wandb import wandb_agent

    started: list[list[str]] = []

    class Caught:
        def __init__(self, command: list[str], **how: object) -> None:
            started.append(command)

    monkeypatch.setattr(wandb_agent, "AgentProcess", Caught)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw123")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("WANDB_RUN_ID", "")  # the agent sets both in this process
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    agent = wandb_agent.Agent.__new__(wandb_agent.Agent)
    vars(agent).update(
        _sweep_command=list(sweep.command or []), _in_jupyter=False, _function=None, _forward_signals=False,
        _run_processes={}, _last_report_time=None,
    )  # fmt: skip
    args = {name: {"value": value} for name, value in sorted(values.items())}
    agent._command_run({"run_id": "abc", "args": args, "program": sweep.program})
    return started[0]


@pytest.fixture(scope="module")
def checker() -> Checker:
    """One parser for all files; it takes longer to make than to use."""
    return Checker()


@pytest.fixture(scope="module")
def build() -> "Builder":
    """The same for what is built."""
    return Builder()


def test_the_files_are_those_that_are_documented():
    assert {file.stem for file in FILES} == set(EXPECTED)
    for file in FILES:
        sweep = read_sweep_file(file)
        assert sweep.name == file.stem
        assert sweep.method == ("custom" if file.stem == "pareto" else "grid")
        assert EXPECTED[file.stem] in (None, len(settings(sweep)))
        assert f"{file.name}" in (ROOT / "docs" / "sweeps.md").read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_point_is_taken_with_the_agent_s_words(file, checker, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["lightning"])
    sweep = read_sweep_file(file)
    arrived: dict[str, set[str]] = {}
    known: set[str] = set()
    for values in settings(sweep):
        words = words_of_the_agent(sweep, values, monkeypatch, tmp_path)
        assert words == argv(sweep.command, sweep.program, values, "", {})
        assert words[0] == "lightning"
        # points that differ by the seed alone have the same words but for its number: one is parsed, and each seed once
        seed = f"--seed_everything={values['seed_everything']}" if "seed_everything" in values else ""
        others = " ".join(word for word in words if word != seed)
        if others in known and seed in known:
            continue
        known |= {others, seed}
        parsed = checker.parsed(words[1], expand(words[2:]))
        wrong = [one for one in parsed.problems() if not one.startswith(NOT_HERE)]
        assert not wrong, (words, wrong)
        for name in ("data.prompt", "model.freeze_text_encoder", "seed_everything", *values):
            arrived.setdefault(name, set()).add(str(parsed_value(parsed, name)))
    # what is varied has arrived where it is meant to
    for name, found in arrived.items():
        assert len(found) == len(choices(sweep, name)), name


def parsed_value(parsed: SettingsCLI, name: str) -> object:
    """What the command understood of ``--model.NAME``, ``--data.NAME`` or another flag."""
    first, _, rest = name.partition(".")
    return parsed.section[f"{first}.init_args.{rest}" if first in ("model", "data") else name]


def choices(sweep: SweepFile, name: str) -> list[object]:
    """The values of a parameter; of one that the file does not vary the one it has."""
    paths = {".".join(path): one for path, one in sweep.parameters.items()}
    if name not in paths:
        return [None]
    return axes({(name,): paths[name]})[0] if sweep.method == "grid" else settings_of(paths[name])


def settings_of(parameter: Parameter) -> list[object]:
    """Of a search: what is tried of it."""
    return [values["x"] for values in settings_to_try({("x",): parameter})]


class Built(SuiteCLI):
    """Model and data of a command, built; no run folder, no Trainer."""

    def __init__(self, verb: str, arguments: list[str]) -> None:
        super().__init__(contextlib.ExitStack(), args=[verb, *arguments], **CLI_OPTIONS)

    def before_instantiate_classes(self) -> None:
        """No folder."""

    def instantiate_trainer(self, **kwargs: object) -> None:  # type: ignore[override]
        """None: GPUs may not be here."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


class Builder:
    """Builds model and data of one command after the other; the parser is kept.

    Attributes:
        known: commands that were built, without what only the trainer and measurements read.
    """

    def __init__(self) -> None:
        self._built: Built | None = None
        self.known: set[str] = set()

    def again(self, words: list[str]) -> bool:
        """Whether a command builds what another one has built: the same but for length and measurements."""
        others = ("--trainer.", "--checkpoint.", "--grounding.", "--fidelity.", "--seed_everything")
        key = " ".join(word for word in words if not word.startswith(others))
        found = key in self.known
        self.known.add(key)
        return found

    def __call__(self, words: list[str], instead: list[str]) -> tuple[LightningModule, LightningDataModule]:
        """Those of a command, with other options ``instead`` of some of its own."""
        arguments = [*expand(words[2:]), *instead]
        if self._built is None:
            self._built = Built(words[1], arguments)
        else:
            self._built.parse_arguments(self._built.parser, [words[1], *arguments])
            self._built.instantiate_classes()
        self._built.model.configure_model()
        return self._built.model, self._built.datamodule


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_model_and_data_of_every_setting_are_built(file, build, monkeypatch, shards, vae_folder):
    """Those of the paper's configs with small parts in the place of weights that are not here; seeds build the same."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["lightning"])
    sweep = read_sweep_file(file)
    small = []
    if not any(name in " ".join(map(str, sweep.command or [])) for name in ("quickstart", "phantom")):
        small = ["--model.unet=assets/phantom_base", "--model.text_encoder=assets/phantom_base",
                 "--model.vae=assets/phantom_vae", f"--data.shards={shards}", "--data.splits_from=null"]  # fmt: skip
    cohorts = set()
    for values in settings(sweep):
        if values.get("seed_everything", 0) != 0:
            continue
        words = argv(sweep.command, sweep.program, values, "", {})
        if build.again(words):
            continue
        model, data = build(words, small)
        frozen = values.get("model.freeze_text_encoder", "learnable" not in words[3])
        assert model.model.freeze_text_encoder is (frozen and file.stem != "pareto")
        trains = any(one.requires_grad for one in model.model.text_encoder.parameters())
        assert trains is not model.model.freeze_text_encoder
        assert data.prompt == values.get("data.prompt", "impression")
        cohorts.add(getattr(data, "folder", str(shards)))
        if "model.unet" in values:  # with the tower under which it was pretrained
            assert model.sources[:2] == (values["model.unet"],) * 2
        if "data.phantom.confounders" in values:
            assert str(list(data.phantom.confounders)).replace("'", "") == values["data.phantom.confounders"]
    # one set of latents for all runs, but for those whose training images differ
    assert len(cohorts) in (0, len(choices(sweep, "data.phantom.confounders")))


def test_a_frozen_tower_with_a_rate_of_its_own_is_not_built(monkeypatch):
    """The control: building finds what parsing does not."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["lightning"])
    words = ["lightning", "fit", "-c", "configs/quickstart.yaml", "--model.text_encoder_learning_rate=1e-5"]
    with pytest.raises(Exception, match="the text encoder is frozen"):
        Builder()(words, [])


def test_the_small_sweep_is_the_quickstart_itself():
    """The sweep changes what it varies and nothing else."""
    sweep = read_sweep_file(ROOT / "sweeps" / "quickstart_tradeoff.yaml")
    assert [".".join(path) for path in sweep.parameters] == [
        "data.prompt",
        "model.freeze_text_encoder",
        "seed_everything",
    ]
    assert sweep.command == ["lightning", "fit", "-c", "configs/quickstart.yaml", "${args}"]
    assert read_yaml(ROOT / "configs" / "quickstart.yaml")["trainer"]["max_steps"] == 2000
