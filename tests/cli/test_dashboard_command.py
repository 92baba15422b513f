"""``lightning dashboard`` as a command, and the models it asks."""

import json
import os
import re
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meddiff.cli.asking import AskedModels, absent_findings, correlation
from meddiff.common.errors import UserError
from tests.builders.command import call
from tests.builders.dashboards import Client
from tests.builders.run_folders import make_run


def picture(kind: str = "PNG", size: int = 64) -> bytes:
    rng = np.random.default_rng(0)
    stream = BytesIO()
    Image.fromarray(rng.integers(0, 255, (size, size), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def base_model(timesteps: int) -> AskedModels:
    return AskedModels(["assets/phantom_base"], timesteps, vae="assets/phantom_vae")


def test_it_serves_until_it_is_stopped(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "frozen" / "one", evaluations=2)
    process = subprocess.Popen(
        [sys.executable, "-m", "meddiff", "dashboard", "--watch", str(tmp_path / "runs"), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", process.stdout.readline())
    assert found is not None
    client = Client(int(found[1])).log_in(found[2])
    assert client.ask("/")[0] == 200
    assert len(json.loads(client.ask("/?data")[2])["evaluations"]["images"]) == 2
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert "stopped" in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--watch", "nowhere"], "no folder nowhere to watch"),
        (["nowhere"], "No run folder at nowhere"),
        (["--watch", ".", "--host", "0.0.0.0"], "not served on 0.0.0.0"),
        (["--watch", ".", "--timesteps", "41"], "--timesteps is 41"),
        (["--watch", ".", "--model", "nowhere"], "nowhere"),
        (["push"], "required: entity"),
        (["push", "nowhere", "--entity", "me"], "Nobody is logged in to W&B here"),
        (["--watch", ".", "--model", "assets/phantom_base"], "No VAE"),
    ],
)
def test_what_cannot_be_served_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    code, _, err = call(capsys, "dashboard", *arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err


def test_a_real_model_is_asked(tmp_path: Path) -> None:
    asked = base_model(2)
    (answer,) = asked(picture(), "Small left pleural effusion.")
    assert [one["word"] for one in answer["words"]] == ["Small", "left", "pleural", "effusion."]
    assert len(answer["absent"]) == 4
    assert all(one["alike"] is not None and -1 <= one["alike"] < 0.9999 for one in answer["absent"])
    pictures = {answer["phrase"], *(one["picture"] for one in answer["words"] + answer["absent"])}
    assert len(pictures) > 6, "each word has a map of its own"
    (again,) = asked(picture("TIFF"), "Small left pleural effusion.")
    assert again == answer, "the same pixels in another file, the same noise"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"\0" * 128 + b"DICM", picture()[:100], b"<svg/>"])
def test_no_picture_is_a_sentence(content: bytes) -> None:
    asked = base_model(1)
    with pytest.raises(UserError, match="no picture that can be read"):
        asked(content, "Edema.")


def test_no_word_is_a_sentence() -> None:
    with pytest.raises(UserError, match="no word"):
        base_model(1)(picture(), "  ")


def test_the_control_asks_for_what_is_not_named() -> None:
    assert "Edema" not in absent_findings("Mild pulmonary edema.", 20)
    assert "Edema" in absent_findings("Small effusion.", 20)
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    assert correlation(ramp, -ramp) == pytest.approx(-1)
    assert correlation(ramp, np.zeros_like(ramp)) is None
