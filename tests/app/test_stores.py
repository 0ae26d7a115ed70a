"""A run in an object store: requests are repeated, and nothing is lost when the store fails and comes back."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from steepest.audit import places
from steepest.audit.api import open_run
from steepest.audit.executors import Pool
from steepest.audit.places import StorePath, place_of
from steepest.audit.store import RunFolder
from steepest.basis.errors import IncompleteError, UsageError
from tests.app.material import answered, refused, steepest
from tests.app.test_executors import WORDS, Watcher, audited
from tests.app.test_resume import SHARDS

TO_STORE = ("audit", *WORDS, "--out", "s3://bucket/runs/a")


class Store:
    """An object store on the disk: no folders, files appear at the end of a request, and requests fail on demand."""

    def __init__(self, folder: Path) -> None:
        self._disk = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
        self.fails: Callable[[int], str | None] = lambda number: None
        self.requests = 0

    def _asked(self) -> None:
        self.requests += 1
        if message := self.fails(self.requests):
            raise OSError(errno.EIO, message)

    def get_file_info(self, asked: Any) -> Any:
        self._asked()
        return self._disk.get_file_info(asked)

    def open_input_file(self, key: str) -> Any:
        self._asked()
        return self._disk.open_input_file(key)

    def open_output_stream(self, key: str) -> Any:
        self._asked()
        self._disk.create_dir(key.rpartition("/")[0])
        return self._disk.open_output_stream(key)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "store").mkdir()
    made = Store(tmp_path / "store")
    monkeypatch.setattr(places, "_store", lambda *_: made)
    monkeypatch.setattr(places, "WAITS", (0.0, 0.0))
    return made


def same_as_reference(run: str) -> None:
    """Records, ledger without times, and kept points equal those of the run on the disk."""
    mine, theirs = RunFolder(run), RunFolder("reference")
    assert mine.table(SHARDS).equals(theirs.table(SHARDS))
    for a, b in zip(mine.ledger(SHARDS), theirs.ledger(SHARDS), strict=True):
        a.seconds = b.seconds = 0
        assert a == b
    kept = [[(place.name, place.read_bytes()) for place in run.arrays("*.npz")] for run in (mine, theirs)]
    assert kept[0] == kept[1] and kept[0]


def test_a_run_in_a_store_is_that_of_a_folder(place: Path, store: Store) -> None:
    answered("audit", *WORDS, "--out", "reference")
    result = answered(*TO_STORE)
    assert result.stdout.splitlines()[-1] == "s3://bucket/runs/a/report.html"
    same_as_reference("s3://bucket/runs/a")
    page = place_of("s3://bucket/runs/a/report.html").read_bytes()
    assert len(page) > 10_000
    assert "finished" in answered("runs", "list", "s3://bucket/runs").stdout
    assert answered("report", "s3://bucket/runs/a").stdout.strip() == "s3://bucket/runs/a/report.html"
    found = open_run("s3://bucket/runs/a")
    assert found.records() == open_run("reference").records() and str(found.folder) == "s3://bucket/runs/a"
    assert not Path("s3:").exists()


def test_a_store_that_fails_in_the_middle_loses_nothing(place: Path, store: Store) -> None:
    answered("audit", *WORDS, "--out", "reference")
    # Every request fails from the middle of the run on.
    store.fails = lambda number: "connection refused" if number > 60 else None
    result = steepest(*TO_STORE)
    assert result.exit_code == 12, result.output
    assert "does not answer" in result.stderr and "Run the same command again" in result.stderr
    store.fails = lambda number: None
    done = SHARDS - len(RunFolder("s3://bucket/runs/a").missing(SHARDS, digest("reference")))
    assert 0 < done < SHARDS
    assert f"continuing: {4 * done} of" in answered(*TO_STORE).stderr
    same_as_reference("s3://bucket/runs/a")


def test_single_failures_are_not_seen(place: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    audited("reference")
    monkeypatch.setattr(places, "WAITS", (0.0,) * 9)
    store.fails = lambda number: "slow down" if number % 5 == 0 else None
    audited("s3://bucket/runs/a")
    same_as_reference("s3://bucket/runs/a")


def test_parts_are_merged_from_a_store(place: Path, store: Store) -> None:
    answered("audit", *WORDS, "--out", "reference")
    answered(*TO_STORE[:-1], "s3://bucket/1", "--shard", "1/2")
    answered(*TO_STORE[:-1], "two", "--shard", "2/2")
    answered("runs", "merge", "s3://bucket/whole", "s3://bucket/1", "two")
    same_as_reference("s3://bucket/whole")


def test_a_store_that_refuses_is_not_asked_again(place: Path, store: Store) -> None:
    store.fails = lambda number: "AWS Error ACCESS_DENIED during PutObject operation: no"
    with pytest.raises(UsageError, match=r"is refused .* check bucket, region and keys"):
        place_of("s3://bucket/a").write(b"x")  # type: ignore[union-attr]
    assert store.requests == 1


def test_what_is_written_is_whole_or_not_there(tmp_path: Path, store: Store) -> None:
    def half(stream: Any) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    for folder in (tmp_path, place_of("s3://bucket/a")):
        with pytest.raises(KeyboardInterrupt):
            places.write(folder / "file", half)
        assert not (folder / "file").exists()
        places.write(folder / "file", b"whole")
        assert not places.create(folder / "file", b"late") and (folder / "file").read_bytes() == b"whole"
        assert [entry.name for entry in folder.iterdir() if entry.name != "store"] == ["file"]
        assert folder.is_dir() and not (folder / "file").is_dir()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://host/run", "give a folder, s3://bucket/path or gs://bucket/path"),
        ("s3://", "give a folder"),
        ("s3://key:secret@bucket/run", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/run?secret_key=x", "allowed are endpoint_override, region, scheme"),
    ],
)
def test_urls_that_are_no_place(place: Path, url: str, says: str) -> None:
    refused("audit", *WORDS, "--out", url, says=(says,))


def test_a_url_says_how_to_reach_its_store() -> None:
    found = place_of("gs://bucket/a/?endpoint_override=localhost:9000&scheme=http")
    assert isinstance(found, StorePath) and found.scheme == "gs" and found.name == "a"
    assert str(found / "b") == "gs://bucket/a/b?endpoint_override=localhost:9000&scheme=http"
    assert place_of(found) is found and place_of("a/b") == Path("a/b")
    assert isinstance(places._store("gs", "bucket", found.options), fs.GcsFileSystem)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server on this machine, reached as AWS_ENDPOINT_URL says, with one bucket."""
    pytest.importorskip("flask")
    made = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    made.start()
    host, port = made.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    places._store.cache_clear()
    place = {"endpoint_override": f"{host}:{port}", "scheme": "http", "region": "us-east-1"}
    fs.S3FileSystem(**place, allow_bucket_creation=True).create_dir("bucket")
    yield made
    made.stop()
    places._store.cache_clear()


def test_a_server_that_stops_in_the_middle_and_comes_back(
    place: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited("reference")
    monkeypatch.setattr(places, "WAITS", (0.01,))
    with pytest.raises(IncompleteError, match="does not answer"):
        audited("s3://bucket/runs/a", progress=Watcher(4, server.stop))
    server._port = server.get_host_and_port()[1]
    server.start()
    seen = Watcher(-1, lambda: None)
    audited("s3://bucket/runs/a", progress=seen)
    assert any("continuing: " in line for line in seen.said)
    same_as_reference("s3://bucket/runs/a")


@pytest.mark.full
def test_a_pool_writes_to_a_server(place: Path, server: Any) -> None:
    audited("reference")
    audited("s3://bucket/runs/a", executor=Pool(workers=2))
    same_as_reference("s3://bucket/runs/a")


def test_a_bucket_that_does_not_exist(place: Path, server: Any) -> None:
    with pytest.raises(UsageError, match="bucket"):
        audited("s3://nowhere/runs/a")


def digest(run: str) -> str:
    return str(RunFolder(run).manifest()["plan_hash"])
