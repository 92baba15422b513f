"""Items: parsing, draws by address, posterior statistics, damaged samples."""

import io
import json

import numpy as np
import pytest
import torch

from datamodules.items import Rules, choose_caption, make_batch
from meddiff.common.errors import UserError
from meddiff.shards.latents import Entry, parse_latent
from tests.builders.shard_samples import SHAPE

MOMENTS = (8, 4, 4)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def rules(**changes):
    values = {"seed": 0, "scaling_factor": 0.5, "stored_shape": MOMENTS, "latent_shape": SHAPE}
    return Rules(**(values | {"sample_posterior": True, "prompt": "impression"} | changes))


def entry(key="a", epoch=0, moments=None, **metadata):
    values = {"impression": f"text of {key}", "captions": [], "labels": ["Edema"]} | metadata
    moments = np.zeros(MOMENTS, np.float16) if moments is None else moments
    return Entry(key, epoch, npy(moments), json.dumps(values).encode(), "train-00000.tar")


def equal(a, b):
    return all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a)


def test_batch_schema():
    batch = make_batch([entry("a"), entry("b", 2)], rules())
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items() if hasattr(value, "dtype")} == {
        "latents": ((2, *SHAPE), torch.float32),
        "noise": ((2, *SHAPE), torch.float32),
        "timestep_uniform": ((2,), torch.float64),
        "dropout_uniform": ((2,), torch.float64),
        "weight": ((2,), torch.float32),
    }
    assert (batch["key"], batch["epoch"], batch["labels"]) == (["a", "b"], [0, 2], [["Edema"], ["Edema"]])
    assert batch["caption"] == ["text of a", "text of b"]
    assert make_batch([entry("a", None)], rules())["epoch"] == [-1]


def test_draws_do_not_depend_on_the_batch():
    """To the last bit: each item is computed on its own, whatever comes with it."""
    entries = [entry(key, epoch, captions=list("uvwxyz")) for key in "abc" for epoch in range(3)]
    whole = make_batch(entries, rules())
    for place, one in enumerate(entries):
        alone = make_batch([one], rules())
        for name, value in alone.items():
            assert (
                torch.equal(value[0], whole[name][place]) if hasattr(value, "dtype") else value[0] == whole[name][place]
            )


@pytest.mark.parametrize("change", ["seed", "epoch", "key"])
def test_draws_differ_by_seed_epoch_and_key(change):
    first = make_batch([entry()], rules())
    other = make_batch(
        [entry("b" if change == "key" else "a", 1 if change == "epoch" else 0)], rules(seed=int(change == "seed"))
    )
    for name in ("latents", "noise", "timestep_uniform", "dropout_uniform"):
        assert not torch.equal(first[name], other[name])
    assert equal(first, make_batch([entry()], rules()))


def test_purposes_are_independent():
    batch = make_batch([entry(str(number)) for number in range(400)], rules(scaling_factor=1.0))
    columns = [batch["latents"].reshape(400, -1)[:, 0], batch["noise"].reshape(400, -1)[:, 0]]
    columns += [batch["timestep_uniform"], batch["dropout_uniform"]]
    correlation = np.corrcoef(np.stack([column.double().numpy() for column in columns]))
    assert np.abs(correlation - np.eye(4)).max() < 0.2  # 4 standard deviations at n = 400


def test_posterior_has_the_stored_mean_and_variance():
    moments = np.zeros(MOMENTS, np.float16)
    moments[:4], moments[4:] = 3.0, np.log(0.25)
    batch = make_batch([entry(moments=moments, epoch=epoch) for epoch in range(500)], rules())
    values = batch["latents"] / 0.5  # 500 x 64 draws
    assert abs(values.mean().item() - 3.0) < 0.01  # 3.6 standard errors of 0.5 / sqrt(32000)
    assert abs(values.std().item() - 0.5) < 0.01
    assert abs(batch["noise"].mean().item()) < 0.025
    assert abs(batch["noise"].std().item() - 1.0) < 0.02
    assert abs(batch["timestep_uniform"].mean().item() - 0.5) < 0.06
    assert 0.0 <= batch["timestep_uniform"].min() < batch["timestep_uniform"].max() < 1.0


def test_log_variance_is_clipped():
    moments = np.full(MOMENTS, 60000.0, np.float16)
    moments[:4] = 0
    assert torch.isfinite(make_batch([entry(moments=moments)], rules())["latents"]).all()


def test_mean_only_draws_nothing():
    moments = np.random.default_rng(0).standard_normal(MOMENTS).astype(np.float16)
    expected = torch.from_numpy(moments[:4].astype(np.float32) * np.float32(0.5))  # a half: exact on any machine
    batch = make_batch([entry(moments=moments)], rules(sample_posterior=False))
    assert torch.equal(batch["latents"][0], expected)
    means = rules(sample_posterior=False, stored_shape=SHAPE)
    assert torch.equal(make_batch([entry(moments=moments[:4])], means)["latents"][0], expected)


def test_captions():
    metadata = {"impression": "i", "captions": [], "labels": ["A", "B", "C"]}
    assert choose_caption(metadata, "impression", (0,)) == "i"
    several = metadata | {"captions": ["u", "v", "w"]}
    chosen = [choose_caption(several, "impression", (0, "caption", epoch, "k")) for epoch in range(300)]
    assert all(70 < chosen.count(caption) < 130 for caption in "uvw")
    shuffled = {choose_caption(metadata, "label", (0, "caption", epoch, "k")) for epoch in range(100)}
    assert shuffled == {"A B C", "A C B", "B A C", "B C A", "C A B", "C B A"}
    assert choose_caption(metadata | {"labels": []}, "label", (0,)) == ""


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"latent": npy(np.zeros((4, 4, 4), np.float16))}, r"float16 \(4, 4, 4\), not float16 \(8, 4, 4\)"),
        ({"latent": npy(np.zeros(MOMENTS, np.float32))}, "float32"),
        ({"latent": npy(np.full(MOMENTS, np.nan, np.float16))}, "not finite"),
        ({"latent": npy(np.zeros(MOMENTS, np.float16))[:-1]}, "damaged"),
        ({"latent": b""}, "damaged"),
        ({"latent": npy(np.array([{}], dtype=object))}, "allow_pickle=False"),
        ({"metadata": b"{"}, "damaged"),
        ({"metadata": b'{"impression": "a", "captions": []}'}, "no 'labels' in its json"),
    ],
)
def test_damaged_samples_are_named(change, match):
    with pytest.raises(UserError, match=match) as error:
        make_batch([entry("good"), entry("bad")._replace(**change)], rules())
    assert "train-00000.tar holds a damaged sample 'bad'" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_parse_takes_other_headers_too():
    array = np.arange(128, dtype=np.float16).reshape(MOMENTS)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(2, 0))
    np.testing.assert_array_equal(parse_latent(buffer.getvalue(), MOMENTS), array)
    np.testing.assert_array_equal(parse_latent(npy(np.asfortranarray(array)), MOMENTS), array)
    np.testing.assert_array_equal(parse_latent(npy(array), MOMENTS), array)
