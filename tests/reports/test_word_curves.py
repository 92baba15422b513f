"""Curves of words: each word of each prompt under each schedule is a curve with its own points, also where it comes twice."""

import json

from meddiff.reports.page.word_curves import word_curves

ROWS = [
    {"prompt": prompt, "schedule": schedule, "word": word, "place": place, "timestep": t, "share": share}
    for prompt, words in (("no edema no tube", ["no", "edema", "no", "tube"]), ("<b>edema", ["<b>edema"]))
    for schedule in ("uniform", "exponential_early")
    for place, word in enumerate(words)
    for t, share in ((900, 0.1 * place), (100, 0.2))
]


def test_each_word_has_a_curve_of_its_own() -> None:
    spec = word_curves(ROWS)
    cells, tables = spec["vconcat"], spec["datasets"]
    assert isinstance(cells, list)
    assert isinstance(tables, dict)
    assert len(cells) == 2
    datasets = [tables[cell["data"]["name"]] for cell in cells]
    assert {one["word"] for one in datasets[0]} == {"1. no", "2. edema", "3. no", "4. tube"}
    assert [len(some) for some in datasets] == [4 * 2 * 2, 2 * 2]
    third = [one["share"] for one in datasets[0] if one["word"] == "3. no" and one["schedule"] == "uniform"]
    assert third == [0.2, 0.2]
    assert "var(--" not in json.dumps(spec)
