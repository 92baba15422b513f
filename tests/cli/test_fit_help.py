"""Help and misspelt options of the Lightning verbs, without torch; and the table behind them is what the classes have."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from meddiff.cli.arguments import expand
from meddiff.cli.fit_help import misspelt
from meddiff.cli.known_options import FILE, TEXTS, is_option, nearest, options_of, text_of, unknown_flags
from tests.builders.command import ROOT, call, child
from tools.options_table import Options, table, texts

#: configs/evaluation are of another verb.
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "evaluation"
)


def test_the_table_is_what_the_classes_have() -> None:
    """Made again by ``python tools/options_table.py``; how types are worded is jsonargparse's affair, and changes with it."""

    def essence(options: Options) -> list[tuple[str, str, str]]:
        return [(name, takes.rpartition("default: ")[2], text) for name, takes, text in options]

    stored, made = json.loads(FILE.read_text()), json.loads(json.dumps(table()))
    for section in ("models", "data", "callbacks"):
        assert stored[section].keys() == made[section].keys()
        for name, described in made[section].items():
            assert stored[section][name]["text"] == described["text"]
            assert essence(stored[section][name]["options"]) == essence(described["options"]), name
    if stored["lightning"] == made["lightning"]:
        assert [one[0] for one in stored["trainer"]] == [one[0] for one in made["trainer"]]


def test_the_texts_name_the_options_that_the_parsers_have() -> None:
    made, stored = texts(), {file.stem: file.read_text() for file in TEXTS.glob("*.txt")}
    assert made.keys() == stored.keys()
    for name, text in made.items():
        assert set(re.findall(r"--[\w.]+", text)) == set(re.findall(r"--[\w.]+", stored[name])), name
    grounding = text_of("evaluate", ["grounding", "--run", "x", "-h"])
    assert grounding is not None
    assert "How many of the paper's 40 timesteps." in grounding
    assert text_of("evaluate", ["grounding"]) is None
    assert text_of("evaluate", ["../options/lightning", "--help"]) is None


def test_help_of_a_config_names_the_options_of_its_classes_without_torch(tmp_path: Path) -> None:
    code = "import sys; from meddiff.cli.main import dispatch; dispatch(sys.argv[1:]); print(sorted(sys.modules))"
    arguments = [sys.executable, "-c", code, "fit", "--help", "-c", "configs/frozen.yaml"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    text, _, modules = done.stdout.rpartition("[")
    for option in ("--model.freeze_text_encoder", "--model.min_snr_gamma", "--grounding.timesteps", "--resume"):
        assert f"  {option}" in text
    for option in ("--base", "--name", "--data.batch_size", "--model.sampling.steps", "--trainer.max_steps"):
        assert f"  {option}" in text
    assert "(bool, default: True; here: True)" in text
    assert ".." not in text.replace("...", "").replace(": ..", "")
    assert "DomainClassifierModule" not in text
    assert not {"'torch'", "'lightning.pytorch'", "'jsonargparse'"} & set(modules.rstrip("]\n").split(", "))


def test_help_of_one_section_and_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "fit", "--model.help")
    assert code == 0
    assert "lightning_modules.AutoencoderModule" in out
    assert "--model.kl_weight" in out
    assert "--trainer" not in out
    code, out, _ = call(capsys, "fit", "--grounding.help")
    assert "--grounding.timesteps" in out
    assert "--fidelity" not in out
    code, out, err = call(capsys, "fit")
    assert (code, out) == (2, "")
    assert "Nothing says what to train" in err
    assert "configs/quickstart.yaml" in err


@pytest.mark.parametrize("config", CONFIGS)
def test_no_option_of_the_suites_own_configs_is_called_misspelt(config: str) -> None:
    if "class_path" not in (ROOT / config).read_text() and "base:" not in (ROOT / config).read_text():
        assert misspelt(["-c", str(ROOT / config)]) == []  # an overlay
    else:
        assert misspelt(expand(["-c", str(ROOT / config)])) == []


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--model.learning_rat", "did you mean --model.learning_rate"),
        ("--model.init_args.min_snr", "did you mean --model.min_snr_gamma"),
        ("--model.sampling.step", "did you mean --model.sampling.steps"),
        ("--grounding.timestep", "did you mean --grounding.timesteps"),
        ("--data.phantom.grond", "did you mean --data.phantom.grounding"),
        ("--trainer.max_step", "did you mean --trainer.max_steps"),
        ("--seed", "did you mean --seed_everything"),
        ("--batch_size", "did you mean --data.batch_size"),
        ("--model.batch_size", "did you mean --data.batch_size"),
        ("--xyzzy", "-c FILE --help lists what there is"),
    ],
)
def test_a_misspelt_option_is_answered_with_what_was_meant(
    flag: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for arguments in ([flag, "3"], [f"{flag}=3"]):
        code, out, err = call(capsys, "fit", "-c", "configs/quickstart.yaml", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {flag} is no option")
        assert told in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate grounding --grounding.timestps 3 --run x", "did you mean --grounding.timesteps"),
        ("evaluate grounding --grounding.timestep=3 --run x", "write --grounding.timesteps in full"),
        ("prepare phantom --resolutoin 64 --out x", "did you mean --resolution"),
        ("report --zzz x", "`lightning report --help` lists them"),
    ],
)
def test_a_misspelt_option_of_another_verb_too(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, *line.split())
    assert code == 2
    assert err.count("error: ") == 1
    assert words in err


def test_every_option_of_a_stored_help_is_known_to_it_and_so_are_keys_of_those_that_take_keys() -> None:
    for file in TEXTS.glob("*.txt"):
        verb, _, part = file.stem.partition("_")
        words = [part] if part else []
        flags = re.findall(r"^  (--[\w.-]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert not unknown_flags(verb, [*words, *flags]), file
    assert not unknown_flags("evaluate", ["coverage", "--coverage.weights.domain", "x", "--", "--none"])
    assert not unknown_flags("sample", ["--prompts", "--no blanks in an option"])
    assert not unknown_flags("fit", ["--anything"]), "the Lightning verbs have a check of their own"


def test_a_misspelt_key_of_a_file_is_answered_with_file_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: configs/quickstart.yaml\nmodel:\n  init_args:\n    learnin_rate: 3\nfidelty: null\n")
    code, _, err = call(capsys, "fit", "-c", str(file))
    assert code == 2
    assert f"{file}: model.learnin_rate is no option of lightning_modules.LatentDiffusionModule: did you mean" in err
    assert f"{file}: fidelty is no option: did you mean fidelity" in err


def test_what_is_not_certain_is_left_to_the_parser(tmp_path: Path) -> None:
    files = ["-c", str(ROOT / "configs" / "quickstart.yaml")]
    for fine in (
        ["--model", "my.package.Module", "--model.anything", "3"],
        ["--model.unet.block_out_channels", "[8]", "--model.unet.anything_of_diffusers", "1"],
        ["--trainer.logger.init_args.project", "x", "--trainer.callbacks+", "my.Callback"],
        ["--data.splits_from.grounding", "x", "--fidelity.weights.domain", "y", "--gallery", "null"],
        ["--model.speed", "{text_cache: 3}", "--print_config", "--ckpt_path=x"],
    ):
        assert misspelt([*files, *fine]) == []


def test_arguments_of_a_class_that_is_replaced_are_dropped_with_it(tmp_path: Path) -> None:
    files = ["-c", str(ROOT / "configs" / "quickstart.yaml")]  # phantoms: data.phantom.*
    assert misspelt([*files, "--data", "datamodules.LatentShardsDataModule"]) == []
    assert misspelt([*files, "--data", "LatentShardsDataModule", "--data.phantom.n", "3"]) != []
    later = tmp_path / "later.yaml"
    later.write_text("data: {class_path: datamodules.LatentShardsDataModule, init_args: {shrads: x}}\n")
    assert len(found := misspelt([*files, "-c", str(later)])) == 1
    assert "data.shrads" in found[0]


def test_nearest_and_parts_of_options() -> None:
    model = options_of("model", "lightning_modules.LatentDiffusionModule")
    assert model is not None
    assert is_option(["sampling"], model)
    assert is_option(["unet", "anything"], model)
    assert not is_option(["sampling", "anything"], model)
    assert not is_option(["samplin"], model)
    assert nearest("freeze", [option.name for option in model]) == ["freeze_text_encoder"]
    assert nearest("qqq", [option.name for option in model]) == []
    assert options_of("model", "my.Module") is None


def test_the_answer_is_the_same_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = child("validate", "-c", "configs/quickstart.yaml", "--model.lerning_rate", "1", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--model.learning_rate" in done.stderr
