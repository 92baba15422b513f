"""Splits of one experiment from several folders (`splits_from`)."""

from types import SimpleNamespace

import pytest
from jsonargparse import Namespace

from datamodules import LatentShardsDataModule
from meddiff.cli.prototypes import prototypes_of
from meddiff.common.errors import UserError
from meddiff.evaluation.prototype_settings import PrototypesOptions
from tests.builders.patronus import tiny_patronus
from tests.builders.shard_samples import make_header, write_folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    path = tmp_path_factory.mktemp("reports")
    write_folder(path, {"train": 8, "val": 4, "grounding": 2})
    return str(path)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    path = tmp_path_factory.mktemp("boxes")
    write_folder(path, {"grounding": 5}, header=make_header(cohort="boxes"))
    return str(path)


def test_the_named_split_comes_from_the_other_folder_and_the_rest_does_not(reports, boxes):
    data = LatentShardsDataModule(reports, batch_size=4, splits_from={"grounding": boxes})
    data.setup("fit")
    assert len(data.dataset("grounding")) == 5
    assert data.dataset("grounding").manifest.cohort == "boxes"
    assert len(data.dataset("val")) == 4
    assert data.manifest.cohort == "made-up"
    # control: without it the folder's own split is read
    assert len(LatentShardsDataModule(reports, batch_size=4).dataset("grounding")) == 2


def test_validation_reads_it_too(reports, boxes):
    data = LatentShardsDataModule(
        reports, batch_size=4, eval_batch_size=5, val_split="grounding", splits_from={"grounding": boxes}
    )
    data.prepare_data()
    data.setup("fit")
    (batch,) = data.val_dataloader()
    assert len(batch["key"]) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vae": {**make_header().vae, "sha256": "cd" * 32}}, "another VAE than"),
        ({"latent": "mean"}, "another kind of latents than"),
        ({"resolution": 64}, "another resolution than"),
    ],
)
def test_shards_that_one_model_cannot_read_are_refused(reports, tmp_path, changes, words):
    write_folder(tmp_path, {"grounding": 3}, header=make_header(**changes))
    arguments = {"shards": reports, "batch_size": 4, "splits_from": {"grounding": str(tmp_path)}}
    (sentence,) = LatentShardsDataModule.preflight(**arguments)
    assert words in sentence
    with pytest.raises(UserError, match=words):
        LatentShardsDataModule(**arguments).setup("fit")


def test_a_folder_that_is_not_there_or_lacks_the_split_is_named(reports, boxes, tmp_path):
    found = LatentShardsDataModule.preflight(shards=reports, splits_from={"grounding": str(tmp_path), "val": boxes})
    assert len(found) == 2
    assert f"splits_from.grounding: no latent shards at {tmp_path}" in found[0]
    assert "no samples of split 'val'" in found[1]
    both = LatentShardsDataModule.preflight(shards=str(tmp_path), splits_from={"grounding": str(tmp_path)})
    assert [line.startswith("splits_from") for line in both] == [False, True]
    (sentence,) = LatentShardsDataModule.preflight(shards=reports, splits_from={"train": boxes})
    assert "split of training" in sentence


def test_boxes_of_another_folder_are_found_where_prototypes_are_measured(reports, boxes, tmp_path):
    """The folder of the reports has no split with boxes of its own here: prototypes were measured without grounding then."""
    write_folder(tmp_path, {"train": 3, "val": 2})
    asked = Namespace(prototypes=PrototypesOptions(), prior=None)

    def of(**more):
        data = LatentShardsDataModule(str(tmp_path), batch_size=2, **more)
        return prototypes_of(SimpleNamespace(data=data, model=tiny_patronus()), asked).beside.grounding, data

    found, data = of(splits_from={"grounding": boxes})
    assert len(found) == 5
    assert data.has_split("grounding")
    nothing, data = of()
    assert nothing is None
    assert not data.has_split("grounding")
    assert data.has_split("train")
