"""tools/patronus_results.py: rows of measured runs, and the page and picture out of the rows."""

import sys
from pathlib import Path

import pytest
import yaml

from meddiff.runs.tables import read_table, write_table
from tests.builders.run_folders import make_run

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import patronus_results as tool  # noqa: E402

PAGE = "by hand\n<!-- made: prototypes -->\nold\n<!-- end -->\n"
PAGE += "".join(f"<!-- made: {name} -->\n<!-- end -->\n" for name in ("shortcuts", "picture", "joined", "xrays"))


def measured(folder: Path, dial: float, seed: int, words: bool = False) -> Path:
    """A run whose index is its correlation and a tenth of its seed."""
    run = make_run(folder / f"{dial}-{words}" / f"t{seed}", "patronus_quickstart", seed=seed, overlays=0, samples=0)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["init_args"]["phantom"] = {"confounders": [f"pacemaker:pneumonia:{dial}"]}
    if not words:
        config["model"] |= {"class_path": "lightning_modules.PatronusModule"}
        config["model"]["init_args"] |= {"text_encoder": None, "prototypes": {"number": 100}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    out = run / "evaluation" / "000032000"
    out.mkdir(parents=True)
    value = dial + seed / 10
    index = {"of": "index", "figure": "index", "value": value, "low": value - 0.2, "high": value + 0.2}
    rows: list[dict[str, object]] = [index, {"of": "biased", "figure": "leak", "value": 2 * value, "low": 0, "high": 9}]
    pair = {"finding": "Pneumonia", "confounder": "pacemaker"}
    write_table(out / "shortcut.csv", [{**row, **pair, "images": 32000, "n": 50} for row in rows])
    if not words:
        pairs = {"latent_auroc": 0.9, "latent_auroc_untrained": 0.7 + seed / 10, "dead_share": 0.0}
        write_table(
            out / "prototype_figures.csv", [{"figure": k, "value": v, "images": 32000} for k, v in pairs.items()]
        )
        latents = [{"encoder": "trained", "figure": "latent_auroc", "value": 0.9, "low": 0.8, "high": 0.95, "n": 1720}]
        write_table(out / "prototype_latents.csv", latents)
    return run


def test_the_page_says_what_the_rows_say(tmp_path: Path) -> None:
    runs = [measured(tmp_path, dial, seed) for dial in (0.5, 0.95) for seed in range(3)]
    runs.append(measured(tmp_path, 0.95, 0, words=True))
    rows, page, picture = tmp_path / "rows.csv", tmp_path / "page.md", tmp_path / "index.svg"
    page.write_text(PAGE)
    places = ["--rows", str(rows), "--page", str(page), "--picture", str(picture)]
    assert tool.main(["collect", *map(str, runs), *places]) == 0
    first = read_table(rows)
    assert tool.main(["collect", str(runs[0]), *places]) == 0  # in the place of what was there of it
    assert read_table(rows) == first
    of_one = [row for row in first if row["figure"] == "latent_auroc"]
    assert len(of_one) == 6
    assert {(row["low"], row["high"], row["n"]) for row in of_one} == {("0.8", "0.95", "1720")}
    assert tool.main(["page", *places]) == 0
    text = page.read_text()
    assert text.startswith("by hand\n<!-- made: prototypes -->\n")
    assert "old" not in text
    assert "| figure | 32,000 images, 3 seeds | against | read against |" in text
    assert "| latent_auroc | 0.90 | 0.80 [" in text
    three = "0.50 [0.30, 0.70]; 0.60 [0.40, 0.80]; 0.70 [0.50, 0.90]"
    assert f"| prototypes | pacemaker with Pneumonia | 0.5 |  | 1.20 [0.70, 1.70] |  | {three} |" in text
    assert (
        "| words, frozen | pacemaker with Pneumonia | 0.95 |  | 1.90 |  | 0.95 [0.75, 1.15] | 0.95 |" in text
    )  # of one seed there is no interval
    assert picture.read_text().count("<svg") == 1


def test_words_with_and_without_prototypes_are_paired_by_seed() -> None:
    """Another protocol, rate, strength of confounders, seed or length of the rows of words is left out."""
    both = [
        {
            "kind": f"words, {arm} and prototypes",
            "confounders": "0.7",
            "seed": str(seed),
            "images": "32000",
            "protocol": "p",
        }
        | {"of": "words", "figure": "grounding/macro_cnr", "value": str(value + seed / 10)}
        for arm, value in (("frozen", 1.0), ("learnable", 0.5))
        for seed in range(3)
    ]
    held = {"of": "prototypes", "figure": "prototype_cnr", "protocol": ""}
    both += [{**row, **held, "value": "0.25"} for row in both if row["seed"] == "0"]
    like = {
        "base": "phantom_base",
        "weights": "min-SNR 5",
        "prompt": "impression",
        "unet_rate": "0.002",
        "confounders": "0.7",
    }
    like |= {"images": "32000", "train_images": "32000", "protocol": "p", "rate": "0", "encoder": "frozen"}
    words = [like | {"seed": str(seed), "grounding/macro_cnr": f"1.{tenth}"} for seed, tenth in enumerate((5, 7, 6))]
    learnable = {"rate": "0.002", "encoder": "learnable"}
    words += [
        like | learnable | {"seed": str(seed), "grounding/macro_cnr": f"0.{tenth}"}
        for seed, tenth in enumerate((7, 9, 8))
    ]
    for name, other in {
        "protocol": "q",
        "confounders": "0.9",
        "seed": "9",
        "images": "8000",
        "weights": "uniform",
    }.items():
        words.append(like | {"seed": "0", "grounding/macro_cnr": "99", name: other})
    words.append(like | {"seed": "0", "rate": "0.001", "encoder": "learnable", "grounding/macro_cnr": "99"})
    text = tool.joined(both, words)
    apart = (
        "1.60 [1.35, 1.85] | 1.10 [0.85, 1.35] | -0.50 [-0.75, -0.25]",
        "0.80 [0.55, 1.05] | 0.60 [0.35, 0.85] | -0.20 [-0.45, 0.05]",
    )
    assert f"| macro CNR of words | {apart[0]} | {apart[1]} |" in text
    assert "| CNR of the best prototype of a finding |  | 0.25 |  |  | 0.25" in text
    assert tool.joined([], words) == tool.NONE


def test_without_rows_nothing_is_claimed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, rows, picture = tmp_path / "page.md", tmp_path / "none.csv", tmp_path / "none.svg"
    page.write_text(PAGE)
    places = ["--rows", str(rows), "--page", str(page), "--picture", str(picture)]
    assert tool.main(["page", *places]) == 0
    assert page.read_text().count("nothing is claimed") == 5
    assert not picture.exists()
    plain = make_run(tmp_path / "plain" / "t", "plain", overlays=0, samples=0)
    assert tool.main(["collect", str(plain), *places]) == 2
    assert "None of these runs was measured" in capsys.readouterr().err
    assert not rows.exists()
