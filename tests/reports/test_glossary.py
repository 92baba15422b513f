"""The glossary says of each name what charts and report say of it, and its page is written from there."""

import re
from pathlib import Path

from meddiff.models.feature_extractors import EXTRACTORS
from meddiff.reports.page.saliency_wording import SALIENCY
from meddiff.reports.page.wording import CONTROLS, GROUNDING, QUESTIONS, direction, label, meaning
from tools.glossary import all_entries, anchor, page, unexplained

PAGE = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"


def test_the_page_is_what_the_words_of_the_report_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tools/glossary.py"


def test_every_figure_has_a_row_with_its_words_and_its_anchor() -> None:
    entries = {one.key: one for one in all_entries()}
    assert {f"saliency/attention/{name}/t381" for name in SALIENCY} <= entries.keys()
    wanted = [f"grounding/{prefix}{name}" for name in GROUNDING for prefix in ("", "macro_")]
    wanted += [f"grounding/{name}" for name in QUESTIONS]
    wanted += [f"fidelity/kid_{name}" for name in EXTRACTORS]
    wanted += [f"fidelity/{kind.frechet}_{name}" for name, kind in EXTRACTORS.items()]
    assert set(wanted) <= entries.keys()
    for key in wanted:
        one = entries[key]
        assert (one.label, one.meaning) == (label(key), meaning(key))
        assert one.better == {1: "more", -1: "less", 0: "–"}[direction(key)]
        assert one.meaning
        assert one.unit
        assert one.source
    text = page()
    anchors = re.findall(r'<a id="([^"]+)">', text)
    assert len(anchors) == len(set(anchors))
    assert {anchor(key) for key in entries} | {f"term-control-{name}" for name in CONTROLS} == set(anchors)


def test_what_has_no_row_is_found() -> None:
    assert unexplained(["grounding/Edema/cnr", "fidelity/real_vs_real/fd_domain", "images"]) == []
    assert unexplained(["saliency/df_cam/gain_absent/t41", "saliency/relevance/new/t1", "prototypes/tad"]) == [
        "saliency/relevance/new/t1"
    ]
    assert unexplained(["grounding/new_score", "fidelity/fid_domain"]) == ["grounding/new_score", "fidelity/fid_domain"]
