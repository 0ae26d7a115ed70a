"""Tensors, data sets and loaders, and which of their examples are chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from steepest.audit.data import batches, open_data, pixel_hash, preview, select
from steepest.basis.errors import DataError, UsageError
from tests.files.material import BYTES, LABELS, everything, picture, refused


def test_digits() -> None:
    source = open_data("digits")
    x = everything(source)
    assert (source.kind, len(source), source.shape) == ("digits", 1797, (1, 8, 8))
    assert x.dtype == torch.float32 and x.min() == 0 and x.max() == 1 and torch.equal(x * 16, (x * 16).round())
    assert source.class_names == tuple("0123456789") and source.labels.bincount().min() > 170
    assert source.sha256() == open_data("digits").sha256()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_keep_their_type_and_are_not_copied(dtype: torch.dtype) -> None:
    x = torch.rand(5, 3, 4, 2).to(dtype)
    source = open_data((x, torch.tensor([0, 1, 2, 0, 1])))
    found = source.fetch(torch.tensor([4, 0]))
    assert source.kind == "tensors" and found.dtype == dtype and torch.equal(found, x[[4, 0]])
    assert source.shape == (3, 4, 2) and source.notes == () and len(source.sha256()) == 64
    x[4] = 0
    assert source.fetch(torch.tensor([4])).abs().sum() == 0


def test_arrays_bytes_and_lists() -> None:
    for x in (BYTES, torch.from_numpy(BYTES)):
        source = open_data((x, LABELS.tolist()))
        assert source.shape == (3, 6, 5) and any("255" in note for note in source.notes)
        assert torch.equal(everything(source), torch.from_numpy(BYTES).permute(0, 3, 1, 2).float() / 255)
    source = open_data(([[1, 2], [3, 4]], [0, 1]))
    assert everything(source).tolist() == [[1.0, 2.0], [3.0, 4.0]] and any("int64" in note for note in source.notes)
    read_only = np.ones((2, 3))[:, ::-1]
    read_only.flags.writeable = False
    assert everything(open_data((read_only, np.array([0, 1])))).dtype == torch.float64
    assert open_data((BYTES, LABELS), labels=["a", "b", "c", "d"]).class_names == ("a", "b", "c", "d")


def test_tensors_bad_input_is_refused_with_a_remedy() -> None:
    x = torch.rand(3, 4)
    refused("2 labels for 3", source=(x, [0, 1]))
    refused("negative", source=(x, [0, 1, -1]))
    refused("not a whole number", source=(x, [0, 1, 0.5]))
    refused("no example", source=(x[:0], []))
    refused("complex", source=(x + 1j, [0, 1, 2]))
    refused("list that is no array", source=([[1, 2], [3]], [0, 1]))
    refused("(x, y)", kind=UsageError, source=x)
    refused("dict", kind=UsageError, source={"x": x})
    refused("--resize", kind=UsageError, source=(x, [0, 1, 2]), resize=(2, 2))
    with pytest.raises(UsageError, match="not opened yet"):
        open_data(open_data((x, [0, 1, 2])), labels=["a"])


class Items(Dataset[Any]):
    """Counts how often it is asked."""

    def __init__(self, items: list[Any], **facts: Any) -> None:
        self.items, self.asked = items, 0
        for name, value in facts.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        self.asked += 1
        return self.items[place]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        for n in range(5):
            yield torch.full((3,), float(n)), n % 2


def test_datasets_are_fetched_by_index() -> None:
    items = [(torch.full((2, 3), float(n)), n % 4) for n in range(30)]
    source = open_data(Items(items))
    assert (source.kind, len(source), source.shape, source.name) == ("dataset", 30, (2, 3), "Items")
    assert source.labels.tolist() == [n % 4 for n in range(30)]
    assert source.fetch(torch.tensor([7, 2]))[:, 0, 0].tolist() == [7.0, 2.0]
    assert source.fetch(torch.tensor([], dtype=torch.int64)).shape == (0, 2, 3)
    x, y = torch.rand(6, 3), torch.arange(6)
    assert torch.equal(everything(open_data(TensorDataset(x, y))), x)


def test_datasets_bring_their_labels_without_decoding_if_these_are_true() -> None:
    items = [(torch.zeros(2), n % 4) for n in range(30)]
    quick = Items(items, targets=[n % 4 for n in range(30)], classes=["a", "b", "c", "d"])
    source = open_data(quick)
    assert source.labels.tolist() == [n % 4 for n in range(30)] and quick.asked < 6
    assert source.class_names == ("a", "b", "c", "d")
    assert open_data(quick, labels=["d", "c", "b", "a"]).labels[:4].tolist() == [3, 2, 1, 0]
    assert open_data(Subset(quick, [9, 3, 6])).labels.tolist() == [1, 3, 2]
    for false in ([9] * 30, [9, *(n % 4 for n in range(1, 30))], [*(n % 4 for n in range(29)), 9], [0] * 6 + [1]):
        assert open_data(Items(items, targets=false)).labels.tolist() == [n % 4 for n in range(30)]


def test_datasets_that_answer_differently_are_noted() -> None:
    class Noisy(Items):
        def __getitem__(self, place: int) -> Any:
            return torch.rand(3), 0

    assert any("differently twice" in note for note in open_data(Noisy([0] * 4)).notes)


def test_datasets_bad_input_is_refused_with_a_remedy() -> None:
    refused("empty", source=Items([]))
    refused("ToTensor", source=Items([(picture(1), 0)]))
    refused("pair (x, y)", source=Items([torch.zeros(3)]))
    refused("negative", source=Items([(torch.zeros(3), -1)]))
    refused("no array of numbers", source=Items([("words", 1)]))
    source = open_data(Items([(torch.zeros(3), 0), (torch.zeros(4), 0)]))
    with pytest.raises(DataError, match=r"item 1 .*\(4,\).*\(3,\)"):
        everything(source)


def test_loaders() -> None:
    data = TensorDataset(torch.arange(8.0)[:, None], torch.arange(8) % 2)
    shuffled = open_data(DataLoader(data, batch_size=3, shuffle=True))
    assert everything(shuffled)[:, 0].tolist() == list(range(8)) and any("shuffling" in n for n in shuffled.notes)
    chosen = open_data(DataLoader(data, batch_size=3, sampler=SubsetRandomSampler([6, 1, 3])))
    assert everything(chosen)[:, 0].tolist() == [1, 3, 6] and chosen.labels.tolist() == [1, 1, 0]
    for source in (Stream(), DataLoader(Stream(), batch_size=2)):
        read = open_data(source)
        assert everything(read)[:, 0].tolist() == list(range(5)) and read.labels.tolist() == [0, 1, 0, 1, 0]
        assert read.kind == "dataset" and any("read into memory" in note for note in read.notes)


def test_limit_takes_the_first() -> None:
    source = open_data((np.zeros((10, 2)), np.arange(10) % 3))
    assert select(source, limit=4).tolist() == [0, 1, 2, 3]
    assert select(source).tolist() == select(source, limit=99).tolist() == select(source, sample=10).tolist()
    for wrong in ({"limit": 0}, {"sample": -3}, {"limit": 2, "sample": 2}):
        with pytest.raises(UsageError):
            select(source, **wrong)


def test_sample_is_stratified_seeded_and_without_repeats() -> None:
    labels = np.repeat([0, 1, 2, 5], [50, 30, 15, 5])
    source = open_data((np.zeros((100, 2)), np.random.default_rng(1).permutation(labels)))
    for total, counts in ((20, [10, 6, 3, 1]), (10, [5, 3, 2, 0]), (1, [1, 0, 0, 0]), (99, [49, 30, 15, 5])):
        ids = select(source, sample=total, seed=7)
        assert ids.dtype == torch.int64 and ids.tolist() == sorted(set(ids.tolist())) and len(ids) == total
        found = source.labels[ids].bincount(minlength=6)[[0, 1, 2, 5]].tolist()
        assert all(abs(a - b) <= 1 for a, b in zip(found, counts, strict=True))
    assert torch.equal(select(source, sample=20, seed=7), select(source, sample=20, seed=7))
    assert not torch.equal(select(source, sample=20, seed=7), select(source, sample=20, seed=8))
    # Within a class every example is equally likely: 400 draws of 10 in 50.
    hits = torch.zeros(100)
    for seed in range(400):
        hits[select(source, sample=20, seed=seed)] += 1
    assert (hits[source.labels == 0] - 80).abs().max() < 5 * 8


def test_sample_is_the_same_on_every_machine() -> None:
    source = open_data((np.zeros((30, 2)), np.arange(30) % 3))
    assert select(source, sample=6, seed=0).tolist() == [2, 3, 7, 10, 11, 12]


def test_preview_says_what_is_there() -> None:
    source = open_data((np.zeros((10, 2)), [3, 3, 3, 1, 1, 0, 0, 0, 0, 0]))
    assert preview(source, select(source, limit=4)) == {
        "n": 4,
        "shape": (2,),
        "classes": [1, 3],
        "counts": {1: 1, 3: 3},
        "one_class": False,
    }
    assert preview(source, select(source, limit=2))["one_class"] is True
    json.dumps(preview(source, select(source)))


def test_batches_cover_the_ids_in_order() -> None:
    source = open_data((torch.arange(7.0)[:, None], np.arange(7) % 2))
    found = list(batches(source, torch.tensor([6, 2, 3, 0, 1]), size=2))
    assert [len(batch.ids) for batch in found] == [2, 2, 1]
    assert torch.cat([batch.x for batch in found])[:, 0].tolist() == [6, 2, 3, 0, 1]
    assert torch.cat([batch.y for batch in found]).tolist() == [0, 0, 1, 0, 1]
    assert list(batches(source, torch.arange(0), size=2)) == []
    with pytest.raises(UsageError):
        list(batches(source, torch.arange(3), size=0))


def test_pixel_hash_names_equal_examples() -> None:
    x = torch.rand(4, 3, 2)
    x[3] = x[1]
    hashes = pixel_hash(x)
    assert hashes[1] == hashes[3] and len(set(hashes)) == 3 and all(len(h) == 16 for h in hashes)
    assert pixel_hash(x.flip(0)) == hashes[::-1] and pixel_hash(x[:0]) == []
    assert pixel_hash(x.transpose(1, 2).contiguous().transpose(1, 2)) == hashes
    assert len(pixel_hash(x.bfloat16())) == 4
