"""Image folders, single images and Parquet files: order, labels, pixels, memory, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from steepest.audit.data import batches, open_data
from steepest.basis.errors import DataError, UsageError
from tests.files.material import RNG, encoded, everything, folder, picture, refused


def test_folder_counts_in_sorted_order_and_keeps_pixels(tmp_path: Path) -> None:
    images = {
        "dog/b.png": picture(1),
        "dog/a.png": picture(2),
        "cat/z.bmp": picture(3),
        "cat/in/y.png": picture(4),
    }
    source = open_data(folder(tmp_path / "pets", images))
    assert (source.kind, source.shape, source.class_names) == ("folder", (3, 4, 5), ("cat", "dog"))
    assert source.labels.tolist() == [0, 0, 1, 1]
    expected = np.stack([np.asarray(images[n]) for n in ("cat/z.bmp", "cat/in/y.png", "dog/a.png", "dog/b.png")])
    assert torch.equal(everything(source), torch.from_numpy(expected).permute(0, 3, 1, 2).float() / 255)
    assert torch.equal(source.fetch(torch.tensor([3, 0])), everything(source)[[3, 0]])


def test_folder_names_follow_the_labels_given(tmp_path: Path) -> None:
    root = folder(tmp_path, {"dog/a.png": picture(1), "cat/b.png": picture(2)})
    source = open_data(root, labels=["dog", "bird", "cat"])
    assert source.labels.tolist() == [2, 0] and source.class_names == ("dog", "bird", "cat")
    refused("'dog'", "did you mean 'dogs'", "--labels", source=root, labels=["dogs", "cat"])
    refused("'cat'", "more than once", kind=UsageError, source=root, labels=["cat", "cat", "dog"])
    refused("not a list", kind=UsageError, source=root, labels="cat,dog")


def test_folder_of_numbers_says_that_it_sorts_as_text(tmp_path: Path) -> None:
    root = folder(tmp_path, {f"{n}/a.png": picture(n) for n in (1, 2, 10)})
    source = open_data(root)
    assert source.class_names == ("1", "10", "2") and any("sorted as text" in note for note in source.notes)
    assert open_data(root, labels=["1", "2", "10"]).labels.tolist() == [0, 2, 1]


def test_folder_grayscale_stays_grayscale_only_if_all_are(tmp_path: Path) -> None:
    gray = picture(1, mode="L")
    root = folder(tmp_path, {"a/1.png": gray, "b/2.png": picture(2, mode="L")})
    source = open_data(root)
    assert source.shape == (1, 4, 5)
    assert torch.equal(source.fetch(torch.tensor([0]))[0, 0], torch.from_numpy(np.array(gray)).float() / 255)
    source = open_data(folder(root, {"b/3.png": picture(3, mode="RGBA")}))
    assert source.shape == (3, 4, 5)
    assert any("Transparency" in note for note in source.notes) and any("RGB" in note for note in source.notes)


def test_folder_turns_images_as_exif_asks(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (8, 16))
    stored.paste((255, 255, 255), (0, 0, 8, 8))
    (tmp_path / "a").mkdir()
    stored.save(tmp_path / "a" / "1.jpg", exif=exif, quality=100)
    source = open_data(tmp_path)
    assert source.shape == (3, 8, 16) and any("upright" in note for note in source.notes)
    assert source.fetch(torch.tensor([0]))[0, 0].mean(0).round().tolist() == [0] * 8 + [1] * 8


def test_folder_sizes_differ_or_are_resized(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a/1.png": picture(1, (5, 4)), "b/2.png": picture(2, (7, 6))})
    refused("4x5", "6x7", "--resize", source=root)
    source = open_data(root, resize=(3, 2))
    assert source.shape == (3, 3, 2) and any("3x2" in note for note in source.notes)
    expected = np.asarray(picture(2, (7, 6)).resize((2, 3), Image.Resampling.BILINEAR))
    assert torch.equal(
        source.fetch(torch.tensor([1]))[0], torch.from_numpy(expected.copy()).permute(2, 0, 1).float() / 255
    )
    refused("(0, 3)", kind=UsageError, source=root, resize=(0, 3))


def test_folder_says_what_it_ignored(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a/1.png": picture(1), ".thumbs/2.png": picture(2), "b/.hidden.png": picture(3)})
    (root / "a" / "readme.txt").write_text("not an image")
    source = open_data(root)
    assert len(source) == 1 and source.class_names == ("a", "b")
    assert any("1 file(s)" in note and "'a'" in note for note in source.notes)
    assert any("'b' has no images" in note for note in source.notes)


def test_folder_bad_input_is_refused_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = folder(tmp_path / "flat", {"1.png": picture(1)})
    refused("class folders", "one folder per class", source=flat)
    refused(
        "splits",
        "train",
        source=folder(tmp_path / "both", {"train/a/1.png": picture(1), "test/a/1.png": picture(1)}),
    )
    (tmp_path / "none" / "a").mkdir(parents=True)
    refused("no image", ".png", source=tmp_path / "none")
    root = folder(tmp_path / "ok", {"a/1.png": picture(1, (50, 50)), "a/2.png": picture(2, (50, 50))})
    (root / "a" / "2.png").write_bytes(b"no image")
    refused("2.png", "repair or remove", source=root)
    (root / "a" / "2.png").write_bytes((root / "a" / "1.png").read_bytes()[:600])
    with pytest.raises(DataError, match=r"2\.png"):
        everything(open_data(root))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.warns(Image.DecompressionBombWarning):
        refused("1.png", "bomb", source=root)


def test_images_of_16_bits_are_refused_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((3, 3), 40000, np.uint16)).save(tmp_path / "a" / "1.png")
    refused("1.png", "8 bits", source=tmp_path)


def test_folder_sha256_sees_names_and_contents(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a/1.png": picture(1), "b/2.png": picture(2)})
    first = open_data(root).sha256()
    assert open_data(root).sha256() == first
    (root / "b" / "2.png").rename(root / "b" / "3.png")
    renamed = open_data(root).sha256()
    picture(9).save(root / "b" / "3.png")
    assert len({first, renamed, open_data(root).sha256()}) == 3


def test_one_image_with_a_label(tmp_path: Path) -> None:
    path = folder(tmp_path, {"cat.png": picture(1)}) / "cat.png"
    source = open_data(path, label=3)
    assert (source.kind, len(source), source.shape, source.labels.tolist()) == ("image", 1, (3, 4, 5), [3])
    assert open_data(str(path)).labels.tolist() == [-1]
    assert open_data(path, label="3").labels.tolist() == [3]
    assert open_data(path, label="cat", labels=["dog", "cat"]).labels.tolist() == [1]
    assert open_data(path, label=0, resize=(9, 8)).shape == (3, 9, 8)
    refused("'cats'", "did you mean 'cat'", kind=UsageError, source=path, label="cats", labels=["dog", "cat"])
    refused("'cat'", "--labels", kind=UsageError, source=path, label="cat")
    refused("-2", kind=UsageError, source=path, label=-2)
    refused("0 to 1", kind=UsageError, source=path, label=2, labels=["dog", "cat"])


def hugging_face(path: Path, *, names: list[str] | None = None, group: int = 4) -> Path:
    images = [{"bytes": encoded(picture(n)), "path": f"{n}.png"} for n in range(11)]
    table = pa.table({"image": images, "label": [n % 3 for n in range(11)]})
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)
    return path


@pytest.mark.parametrize("group", [1, 4, 100])
def test_parquet_of_images_as_hugging_face_writes_them(tmp_path: Path, group: int) -> None:
    source = open_data(hugging_face(tmp_path / "d.parquet", names=["a", "b", "c"], group=group))
    assert (source.kind, source.shape, len(source)) == ("parquet", (3, 4, 5), 11)
    assert source.class_names == ("a", "b", "c") and source.labels.tolist() == [n % 3 for n in range(11)]
    for ids in ([0, 1], [10, 3, 3, 0], [2], []):
        found = source.fetch(torch.tensor(ids, dtype=torch.int64))
        expected = [torch.from_numpy(np.array(picture(n))).permute(2, 0, 1).float() / 255 for n in ids]
        assert torch.equal(found, torch.stack(expected) if ids else torch.empty(0, 3, 4, 5))
    assert open_data(tmp_path / "d.parquet", labels=["c", "b", "a"]).labels[:3].tolist() == [2, 1, 0]
    assert open_data(tmp_path / "d.parquet", resize=(2, 2)).shape == (3, 2, 2)


def test_parquet_of_plain_bytes_and_words(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    columns = {"images": [encoded(picture(n, mode="L")) for n in range(3)], "y": ["dog", "cat", "dog"]}
    pq.write_table(pa.table(columns), path)
    source = open_data(path)
    assert (source.shape, source.labels.tolist(), source.class_names) == (
        (1, 4, 5),
        [1, 0, 1],
        ("cat", "dog"),
    )
    assert open_data(path, labels=["dog", "cat"]).labels.tolist() == [0, 1, 0]
    refused("'cat'", "did you mean 'cats'", source=path, labels=["dog", "cats"])


def test_parquet_of_features(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    columns = {
        "b": [1.5, 2.5, None],
        "label": [0, 1, 1],
        "a": [3, 4, 5],
        "name": ["p", "q", "r"],
        "on": [True, False, None],
    }
    pq.write_table(pa.table({**columns, "__index_level_0__": [7, 8, 9]}), path, row_group_size=2)
    source = open_data(path)
    assert source.shape == (3,) and source.labels.tolist() == [0, 1, 1]
    x = source.fetch(torch.tensor([2, 0]))
    assert x.dtype == torch.float32 and x[1].tolist() == [1.5, 3.0, 1.0]
    assert x[0].isnan().tolist() == [True, False, True]
    assert any("b, a, on" in note for note in source.notes)
    assert any("name, __index_level_0__" in note for note in source.notes)
    refused("--resize", kind=UsageError, source=path, resize=(2, 2))


@pytest.mark.parametrize("group", [70, 1_000])
def test_parquet_may_be_read_backwards(tmp_path: Path, group: int) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"f": np.arange(200.0), "label": [0] * 200}), path, row_group_size=group)
    source = open_data(path)
    for ids in ([199, 0], [150], [40], [3, 139, 141, 69, 70]):
        assert source.fetch(torch.tensor(ids))[:, 0].tolist() == ids


def test_parquet_memory_is_one_page_of_a_large_row_group(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    blobs = [encoded(Image.fromarray(RNG.integers(0, 256, (36, 36, 3), dtype=np.uint8))) for _ in range(20)]

    def peak(count: int) -> int:
        pq.write_table(pa.table({"image": blobs * (count // 20), "label": [0] * count}), path, use_dictionary=False)
        assert pq.ParquetFile(path).num_row_groups == 1
        before, most = pa.total_allocated_bytes(), 0
        source = open_data(path, resize=(2, 2))
        for batch in batches(source, torch.arange(0, count, 50), size=4):
            most = max(most, pa.total_allocated_bytes() - before)
            assert batch.x.shape[1:] == (3, 2, 2)
        return most

    small, large = peak(1_500), peak(6_000)
    assert path.stat().st_size > 20e6 and 0 < large < small + 1e6 < 10e6


def test_parquet_bad_input_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"

    def bad(*parts: str, **columns: Any) -> None:
        pq.write_table(pa.table(columns), path)
        refused(str(path), *parts, source=path)

    image = encoded(picture(1))
    bad("no label column", "target (int64)", image=[image], target=[1])
    bad("neither image bytes", "columns of numbers", name=["a"], label=[1])
    bad("no rows", image=pa.array([], pa.binary()), label=pa.array([], pa.int64()))
    bad("no label", "row 1", image=[image] * 2, label=[1, None])
    bad("negative", image=[image] * 2, label=[0, -1])
    bad(
        "row 0",
        "embed",
        image=pa.array([{"bytes": None, "path": "a.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        label=[1],
    )
    bad("row 1", "repair or remove", image=[image, b"broken"], label=[0, 1])
    path.write_bytes(path.read_bytes()[:-20])
    refused("truncated", source=path)


def test_parquet_sizes_that_differ_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"image": [encoded(picture(1)), encoded(picture(2, (7, 6)))], "label": [0, 1]}), path)
    with pytest.raises(DataError, match=r"row 1.*6x7.*4x5.*--resize"):
        everything(open_data(path))
