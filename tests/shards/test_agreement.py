"""Samples chosen so that finding and confounder agree as often as asked."""

import math

import numpy as np
import pytest

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.shards.agreement import TOLERANCE, Chosen, choose, choose_stamped, has, is_column, phi

Pairs = dict[str, tuple[bool | None, bool | None]]


def cohort(n: int = 600, correlation: float = 0.3) -> Pairs:
    """A with 0.4; B copies it with the correlation, else is drawn with 0.3."""
    pairs: Pairs = {}
    for i in range(n):
        draw = generator("cohort", i)
        a = bool(draw.random() < 0.4)
        pairs[f"s{i:05d}"] = (a, a if draw.random() < correlation else bool(draw.random() < 0.3))
    return pairs


def measured(pairs: Pairs, found: Chosen) -> tuple[float, float]:
    """Agreement and phi of the keys, by numpy."""
    rows = np.asarray([pairs[key] for key in found.keys], float)
    return float((rows[:, 0] == rows[:, 1]).mean()), float(np.corrcoef(rows.T)[0, 1])


@pytest.mark.parametrize("correlation", [-0.2, 0.0, 0.6])
@pytest.mark.parametrize("rho", [0.25, 0.5, 0.75, 0.9, 0.95])
def test_the_target_is_hit_with_balanced_margins_and_without_repeats(rho: float, correlation: float) -> None:
    pairs = cohort(correlation=max(correlation, 0))
    if correlation < 0:
        pairs = {key: (a, not b) for key, (a, b) in pairs.items()}
    found = choose(pairs, rho)
    agreement, association = measured(pairs, found)
    assert abs(agreement - rho) <= TOLERANCE
    assert agreement == pytest.approx(found.agreement)
    assert association == pytest.approx(found.phi)
    assert association == pytest.approx(2 * rho - 1, abs=0.05)
    assert len(set(found.keys)) == len(found.keys)
    n = len(found.keys)
    assert abs(sum(pairs[key][0] or False for key in found.keys) - n / 2) <= 1
    assert abs(sum(pairs[key][1] or False for key in found.keys) - n / 2) <= 1


def test_the_cohort_itself_does_not_have_it() -> None:
    """The control: drawing as many at random reaches neither agreement nor margins."""
    pairs = cohort()
    found = choose(pairs, 0.95)
    some = Chosen(tuple(list(pairs)[: len(found.keys)]), *found[1:])
    assert abs(measured(pairs, some)[0] - 0.95) > 5 * TOLERANCE


def test_the_set_is_the_largest_and_those_of_an_experiment_are_as_large() -> None:
    pairs = cohort()
    kinds = [sum(pair == kind for pair in pairs.values()) for kind in ((True, True), (False, False))]
    alone = choose(pairs, 0.95)
    assert 2 * min(kinds) / 0.95 - 2 < len(alone.keys) <= 2 * min(kinds) / 0.95 + 1
    sizes = {len(choose(pairs, rho, others=(0.5, 0.75, 0.95)).keys) for rho in (0.5, 0.75, 0.95)}
    assert len(sizes) == 1
    assert sizes < {len(choose(pairs, rho).keys) for rho in (0.5, 0.75, 0.95)} | sizes
    free = choose(pairs, 0.95, margins="free")
    assert len(free.keys) > len(alone.keys)
    assert abs(measured(pairs, free)[0] - 0.95) <= TOLERANCE


def test_draws_have_addresses() -> None:
    pairs = cohort()
    found = choose(pairs, 0.75, size=100)
    backwards = dict(reversed(list(pairs.items())))
    assert choose(backwards, 0.75, size=100) == found
    assert choose(pairs, 0.75, size=100, seed=1).keys != found.keys
    more = {**pairs, **{f"t{i}": (None, True) for i in range(30)}}
    assert choose(more, 0.75, size=100)._replace(unknown=0) == found
    assert choose(more, 0.75, size=100).unknown == 30
    # another agreement keeps what it can: 80 of the 100
    assert len({*found.keys} & {*choose(pairs, 0.95, size=100).keys}) == 80


def test_what_cannot_be_reached_is_told_with_what_can() -> None:
    never_alone = {f"k{i}": (i % 2 == 0, i % 2 == 0) for i in range(100)}
    with pytest.raises(UserError, match=r"50 both, 0 A alone, 0 B alone, 50 neither\): they reach from 1\.00 to 1\.00"):
        choose(never_alone, 0.5)
    assert choose(never_alone, 1.0).phi == pytest.approx(1.0)
    pairs = cohort()
    with pytest.raises(UserError, match=r"of 500 samples with balanced margins.*they reach nothing.*margins: free"):
        choose(pairs, 0.95, size=500)
    with pytest.raises(UserError, match=r"within 0\.02"):
        choose(pairs, 0.525, size=20)  # 10 or 11 of 20
    with pytest.raises(UserError, match="from 0"):
        choose(pairs, 1.5)
    with pytest.raises(UserError, match="20 or more"):
        choose(pairs, 0.5, size=4)


@pytest.mark.parametrize("rho", [0.5, 0.75, 0.95])
def test_stamps_move_and_images_stay(rho: float) -> None:
    findings = {key: a for key, (a, _) in cohort().items()}
    found, control = choose_stamped(findings, rho), choose_stamped(findings, 0.5)
    assert found.keys == control.keys
    stamps = np.asarray([[bool(findings[key]), key in found.stamped] for key in found.keys], float)
    assert abs((stamps[:, 0] == stamps[:, 1]).mean() - rho) <= TOLERANCE
    assert np.corrcoef(stamps.T)[0, 1] == pytest.approx(found.phi, abs=1e-9)
    assert stamps.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.01)
    assert found.stamped <= {*found.keys}
    assert (found.stamped == control.stamped) == (rho == 0.5)


def test_a_stamp_needs_both_kinds_of_images() -> None:
    with pytest.raises(UserError, match="30 samples have the finding and 0 do not"):
        choose_stamped(dict.fromkeys(map(str, range(30)), True), 0.5)


def test_labels_confounders_and_attributes_say_who_has_what() -> None:
    metadata = {"labels": ["Edema"], "attributes": {"confounders": ["tube"], "PM": -1, "sex": "1.0", "age": ""}}

    def asked(name: str, uncertain: str = "ignored") -> bool | None:
        return has(metadata, name, uncertain)  # type: ignore[arg-type]

    assert [asked(name) for name in ("Edema", "tube", "marker", "Nodule", "PM", "sex", "age")] == [
        *(True, True, False, False, None, True, None)
    ]
    assert (asked("PM", "positive"), asked("PM", "negative")) == (True, False)


def test_a_column_of_a_table_is_unknown_where_it_is_blank() -> None:
    rows = [{"labels": [], "attributes": {"table": {"PM": cell}}} for cell in ("1.0", "0.0", "-1.0")]
    rows.append({"labels": ["Edema"], "attributes": {}})
    assert is_column(rows, "PM")  # type: ignore[arg-type]
    assert not is_column(rows, "Edema")  # type: ignore[arg-type]
    found = [has(row, "PM", column=True) for row in rows]  # type: ignore[arg-type]
    assert found == [True, False, None, None]
    assert has(rows[3], "PM", blank="negative", column=True) is False  # type: ignore[arg-type]


def test_phi_by_hand() -> None:
    assert phi((40, 10, 10, 40)) == pytest.approx(0.6)
    assert math.isnan(phi((4, 4, 0, 0)))
