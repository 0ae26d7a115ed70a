"""NumPy archives and paths are read as they were meant, within bounded memory, and refused with a remedy otherwise."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steepest.audit.data import batches, open_data, select
from steepest.basis.errors import DataError, UsageError
from tests.files.material import BYTES, LABELS, RNG, SHARED, everything, npz, refused


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y")])
def test_npz_bytes_are_exactly_their_255th(tmp_path: Path, compressed: bool, names: tuple[str, str]) -> None:
    source = open_data(npz(tmp_path, compressed=compressed, **dict(zip(names, (BYTES, LABELS), strict=True))))
    expected = torch.from_numpy(BYTES).permute(0, 3, 1, 2).float() / 255
    assert (source.kind, len(source), source.shape) == ("npz", 23, (3, 6, 5))
    assert torch.equal(everything(source), expected)
    assert source.labels.dtype == torch.int64 and source.labels.tolist() == LABELS.tolist()
    assert any("255" in note for note in source.notes) and any("front" in note for note in source.notes)


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_rows_come_in_the_order_asked(tmp_path: Path, compressed: bool) -> None:
    source = open_data(npz(tmp_path, compressed=compressed, images=BYTES, labels=LABELS))
    whole = everything(source)
    for ids in ([22, 0, 1, 2, 2, 9, 8], [5], [], list(range(22, -1, -1))):
        assert torch.equal(source.fetch(torch.tensor(ids, dtype=torch.int64)), whole[ids])
    with pytest.raises(UsageError, match="example 23"):
        source.fetch(torch.tensor([0, 23]))
    with pytest.raises(UsageError, match="example -1"):
        source.fetch(torch.tensor([-1]))


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ((6, 5), (1, 6, 5)),
        ((6, 5, 1), (1, 6, 5)),
        ((6, 5, 4), (4, 6, 5)),
        ((3, 5, 4), (3, 5, 4)),
        ((6, 5, 7), (6, 5, 7)),
        ((9,), (9,)),
        ((9, 1), (9, 1)),
        ((1, 9), (1, 9)),
        ((2, 3, 4, 5), (2, 3, 4, 5)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_layouts(tmp_path: Path, stored: tuple[int, ...], shape: tuple[int, ...], order: Any) -> None:
    x = np.asarray(RNG.normal(size=(7, *stored)), order=order)
    source = open_data(npz(tmp_path, x=x, y=LABELS[:7]))
    expected = torch.from_numpy(np.ascontiguousarray(x)).float()
    if len(shape) == 3 and shape[0] != stored[0]:
        expected = expected.permute(0, 3, 1, 2) if len(stored) == 3 else expected[:, None]
    assert source.shape == shape
    assert torch.equal(everything(source), expected)
    assert source.fetch(torch.tensor([6, 1])).dtype == torch.float32
    assert any("float64" in note for note in source.notes)


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_in_fortran_order_and_foreign_bytes(tmp_path: Path, compressed: bool) -> None:
    x = np.asfortranarray(RNG.integers(-9, 9, (11, 3, 4, 2))).astype(">i4")
    source = open_data(npz(tmp_path, compressed=compressed, x=np.asfortranarray(x), y=LABELS[:11]))
    assert torch.equal(everything(source), torch.from_numpy(x.astype(np.float32)))


def test_npz_without_positioned_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_data(npz(tmp_path, images=BYTES, labels=LABELS))
    whole = everything(source)
    monkeypatch.delattr(os, "preadv", raising=False)
    assert torch.equal(source.fetch(torch.tensor([20, 3, 4])), whole[[20, 3, 4]])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_memory_does_not_grow_with_the_number_of_examples(tmp_path: Path, compressed: bool, order: Any) -> None:
    def peak(count: int) -> int:
        x = np.zeros((count, 784), np.float32, order=order)
        path = npz(tmp_path, compressed=compressed, x=x, y=np.zeros(count, np.uint8))
        del x
        tracemalloc.start()
        source = open_data(path)
        for batch in batches(source, select(source), size=100):
            assert batch.x.shape == (100, 784)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # 31 MB of images against 6; arrays in Fortran order are turned in blocks of 4 MB.
    peak(100)
    small, large = peak(2_000), peak(10_000)
    assert large < 12e6 and large < small + 1e6


def test_npz_labels_as_columns_words_and_whole_floats(tmp_path: Path) -> None:
    for labels in (LABELS[:, None], LABELS.astype(np.float64), LABELS.astype(np.uint8)):
        assert open_data(npz(tmp_path, images=BYTES, labels=labels)).labels.tolist() == LABELS.tolist()
    words = np.array(["dog", "ant", "cat", "bee"])[LABELS]
    source = open_data(npz(tmp_path, images=BYTES, labels=words))
    assert source.class_names == ("ant", "bee", "cat", "dog") and source.labels[:4].tolist() == [3, 0, 2, 1]
    order = ["dog", "ant", "cat", "bee"]
    assert open_data(npz(tmp_path, images=BYTES, labels=words), labels=order).labels.tolist() == LABELS.tolist()


def test_npz_class_names_are_matched_to_the_order_of_the_model(tmp_path: Path) -> None:
    path = npz(tmp_path, images=BYTES, labels=LABELS, classes=np.array(["a", "b", "c", "d"]))
    assert open_data(path).class_names == ("a", "b", "c", "d")
    source = open_data(path, labels=["d", "c", "b", "a", "e"])
    assert source.labels.tolist() == (3 - LABELS).tolist() and source.class_names == ("d", "c", "b", "a", "e")
    assert any("matched by class name" in note for note in source.notes)
    strangers = open_data(path, labels=["p", "q", "r", "s"])
    assert strangers.labels.tolist() == LABELS.tolist()
    assert any("nothing in common" in note for note in strangers.notes)
    refused("'d'", "--labels", source=path, labels=["a", "b", "c", "e"])


def test_npz_bad_input_is_refused_with_a_remedy(tmp_path: Path) -> None:
    def bad(*parts: str, **arrays: Any) -> None:
        refused(*parts, source=npz(tmp_path, **arrays))

    bad("jpeg, labels", "images or x", jpeg=BYTES, labels=LABELS)
    bad("labels or y", "images", images=BYTES)
    bad("pickled", images=np.array([{}, []], dtype=object), labels=LABELS[:2])
    bad("pickled", images=BYTES, labels=np.array([None] * 23, dtype=object))
    bad("no example", images=BYTES[:0], labels=LABELS[:0])
    bad("22 labels for 23", images=BYTES, labels=LABELS[:22])
    bad("negative", "position 0", images=BYTES, labels=LABELS - 1)
    bad("not a whole number", "position 1", images=BYTES, labels=LABELS + np.linspace(0, 0.5, 23))
    bad("not a whole number", images=BYTES, labels=np.full(23, np.nan))
    bad("argmax", images=BYTES, labels=np.eye(4)[LABELS])
    bad("complex", images=BYTES.astype(np.complex64), labels=LABELS)
    bad("shape ()", x=np.arange(3.0), y=LABELS[:3])


def test_npz_truncated_or_corrupt(tmp_path: Path) -> None:
    path = npz(tmp_path, compressed=True, images=BYTES, labels=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("truncated", "again", source=path)
    path.write_bytes(whole[:200] + bytes(200) + whole[400:])
    refused(str(path), "again", source=path)
    path.write_bytes(b"")
    refused("truncated", source=path)


def test_npz_shortened_after_opening(tmp_path: Path) -> None:
    path = npz(tmp_path, images=BYTES, labels=LABELS)
    source = open_data(path)
    os.truncate(path, 600)
    with pytest.raises(DataError, match="shorter than its header"):
        everything(source)


def test_npz_with_no_space_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    refused("no space", "TMPDIR", "savez", source=npz(tmp_path, compressed=True, images=BYTES, labels=LABELS))
    open_data(npz(tmp_path, images=BYTES, labels=LABELS))


@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_when_the_disk_fills_up_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    path = npz(tmp_path, compressed=order == "C", images=np.asarray(BYTES, order=order), labels=LABELS)
    refused("no space", "TMPDIR", source=path)


def test_npz_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = npz(tmp_path, images=BYTES, labels=LABELS)
    assert open_data(path).sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    npz(tmp_path, images=BYTES, labels=LABELS)
    refused("did you mean 'data.npz'", ".parquet", source=tmp_path / "dta.npz")
    refused("did you mean 'digits'", source="digit")
    refused("does not exist either", source=tmp_path / "nowhere" / "a.npz")
    for name, part in (
        ("a.csv", ".parquet"),
        ("a.npy", "numpy.savez"),
        ("a.xyz", "allowed"),
        ("a", "nothing"),
    ):
        (tmp_path / name).write_bytes(pickle.dumps(1))
        refused(part, source=tmp_path / name)
    refused("--resize", kind=UsageError, source=tmp_path / "data.npz", resize=(2, 2))
    refused("--label", kind=UsageError, source=tmp_path / "data.npz", label=1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not here")
def test_real_files() -> None:
    mnist = open_data(SHARED / "mnist_test.npz")
    assert (len(mnist), mnist.shape, int(mnist.labels.max())) == (10_000, (1, 28, 28), 9)
    cifar = open_data(SHARED / "cifar10_test_2000.npz")
    assert (cifar.shape, cifar.labels.bincount().tolist()) == ((3, 32, 32), [200] * 10)
    assert cifar.class_names is not None and cifar.class_names[0] == "airplane"
    with np.load(SHARED / "cifar10_test_2000.npz") as stored:
        expected = torch.from_numpy(stored["images"][[1999, 5]]).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(cifar.fetch(torch.tensor([1999, 5])), expected)
    refused("jpeg", "images or x", source=SHARED / "cifar10_train_jpeg.npz")
