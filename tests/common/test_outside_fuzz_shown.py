"""Hostile text as a URL, as a class, and on a terminal or in a table: it starts nothing and does nothing."""

import contextlib
import io
import re
import shlex
from dataclasses import replace

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from datamodules.streaming import expand_urls, open_url, read_manifest, read_shards
from meddiff.cli.main import main
from meddiff.common.errors import UserError
from meddiff.common.outside import markdown_cell, terminal
from meddiff.reports.paper.cells import Cell, Table
from meddiff.reports.paper.render import RENDERERS
from meddiff.runs.open_run import open_run
from meddiff.shards.remake import remake_command
from tests.builders.audit import watched
from tests.builders.doors import READERS, TEXT, fuzz, harmless, no_commands, quiet
from tests.builders.shard_samples import make_header

# Commands ------------------------------------------------------------------------------------------------------------


@fuzz(200)
@given(scheme=st.sampled_from(("s3", "http", "https", "gs", "ais", "sftp", "scp", "S3", "file", "ftp")), rest=TEXT)
def test_a_url_starts_nothing_but_its_own_command_without_a_shell(place, scheme, rest):
    folder = place()
    with no_commands(folder):
        for url in (f"{scheme}://b/{rest}", f"{scheme}:{rest}"):
            with harmless(folder, commands=READERS) as watch:
                list(read_shards([url], 0, make_header()))
            with harmless(folder, commands=READERS) as asked:
                read_manifest(url)
            for argv in watch.started:
                assert argv.count(url) == 1  # a word of its own, whatever it holds
            for argv in asked.started:  # braces of a manifest's address are expanded
                assert sum(word.startswith(f"{scheme}:") for word in argv) == 1


@fuzz(60)
@given(rest=TEXT)
def test_braces_of_urls_make_no_command(place, rest):
    with no_commands(place()), contextlib.suppress(ValueError):  # unbalanced braces
        for url in expand_urls(f"s3://b/{rest}"):
            with harmless(commands=READERS):
                open_url(url).close()


@pytest.mark.parametrize("path", ["subprocess.Popen", "os.system", "subprocess.run", "os.remove", "shutil.rmtree"])
@pytest.mark.parametrize("part", ["model", "data"])
def test_a_config_calls_no_class_but_those_of_a_run(place, path, part):
    run, victim = place(), "touch PWNED"
    (run / "checkpoints").mkdir()
    arguments = {"args": victim, "shell": True, "command": victim, "path": "victim"}
    torch.save({"state_dict": {}, "hyper_parameters": arguments}, run / "checkpoints" / "step-1.ckpt")
    (run / "config.yaml").write_text(yaml.safe_dump({part: {"class_path": path, "init_args": arguments}}))
    with watched(run) as watch, pytest.raises(UserError, match="is not called"):
        getattr(open_run(run), "module" if part == "model" else "data")
    assert watch.seen == []


# What is shown -------------------------------------------------------------------------------------------------------


@fuzz(200)
@given(text=TEXT)
def test_what_is_shown_does_nothing(text):
    shown = terminal(text)
    assert quiet(shown)
    assert "\n" not in shown
    cell = markdown_cell(text)
    assert "\n" not in cell
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<>`\[\]]", cell)


@fuzz(100)
@given(text=TEXT, other=TEXT)
def test_tables_keep_their_rows_and_columns(text, other):
    table = Table("table1", text, [text, "n", other], [[Cell(text), Cell(1.0), Cell(other)]], [other])
    for style, write in RENDERERS.items():
        assert quiet(write(table)), style
    lines = RENDERERS["markdown"](table).split("\n")
    assert len(lines) == len(
        RENDERERS["markdown"](Table("t", "t", ["a", "n", "b"], [[Cell("a")] * 3], ["c"])).split("\n")
    )
    for line in (lines[2], lines[4]):
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 4
    assert quiet(RENDERERS["markdown"](Table("t", "t", missing=text)))
    assert RENDERERS["latex"](Table("t", "t", missing=f"no {text}")).count("\n") == 1


@fuzz(200)
@given(command=TEXT, cohort=TEXT, out=TEXT)
def test_a_command_to_be_copied_is_one_command_of_plain_words(command, cohort, out):
    for known in (command, f"lightning prepare {command}", f"lightning prepare nih {command}"):
        shown = remake_command(replace(make_header(), command=known, cohort=cohort), out, "vae", 64)
        assert quiet(shown)
        assert "\n" not in shown
        assert shlex.split(shown)[:2] == ["lightning", "prepare"]
        marked = shlex.shlex(shown, posix=True, punctuation_chars=True)  # operators outside quotes become tokens
        marked.whitespace_split = True
        assert not [token for token in marked if re.fullmatch(r"[;&|<>()]+", token) and token not in shlex.split(shown)]


VERBS = (
    lambda text: (text,),
    lambda text: ("report", text),
    lambda text: ("tables", text),
    lambda text: ("prepare", text),
    lambda text: ("prepare", "folder", "--root", text, "--dry_run"),
    lambda text: ("fit", "-c", text),
    lambda text: ("fit", "--resume", text),
    lambda text: ("sample", "--prompts", "x", "--ckpt", text),
    lambda text: ("sample", "--prompts", "x", "--model", text),
    lambda text: ("evaluate", text),
    lambda text: ("evaluate", "grounding", "--model", text, "--shards", text),
)


@fuzz(120)
@given(verb=st.sampled_from(VERBS), text=TEXT)
def test_the_command_says_no_in_words_that_do_nothing(place, verb, text):
    folder, out = place(), io.StringIO()
    text = text.replace("\0", "").encode("utf-8", "ignore").decode()  # what no process can be given
    with (
        watched(folder) as watch,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        pytest.raises(SystemExit),
    ):
        main(list(verb(text)))
    assert watch.seen == []
    assert quiet(out.getvalue())
