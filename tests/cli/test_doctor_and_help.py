"""``lightning doctor`` and ``lightning --help``."""

import os

from tests.builders.command import ROOT, call


def test_doctor(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    # Ours may not be on PATH when the tests run from a checkout; an imposter must be told apart in any case.
    imposter = tmp_path / "lightning"
    imposter.write_text("#!/bin/sh\nexec lightning_sdk\n")
    imposter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    code, out, _ = call(capsys, "doctor")
    assert code == 1
    assert "another package's" in out
    imposter.write_text("#!/usr/bin/python\nfrom meddiff.cli.main import main\nmain()\n")
    _, out, _ = call(capsys, "doctor")
    assert "is ours" in out
    assert "torch" in out
    assert "free disk" in out


def test_versions_are_those_of_what_is_installed(capsys):
    import torch

    for flag in ("--version", "-V"):
        code, out, _ = call(capsys, flag)
        assert code == 0
        assert out.startswith("meddiff-tradeoff ")
        assert f"\ntorch {torch.__version__.partition('+')[0]}" in out


def test_help_is_quick_and_complete(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    for verb in ("fit", "validate", "test", "predict", "prepare", "sample", "doctor"):
        assert verb in out
