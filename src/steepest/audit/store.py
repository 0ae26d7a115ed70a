"""A run is a folder: manifest.json, results/*.parquet, artifacts/. The file is the commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steepest.audit import places
from steepest.audit.contract import RECORD, SCHEMA_VERSION, Plan, Stage, mended_key, sample_key
from steepest.audit.merging import ASSURANCE, MENDED, merged
from steepest.audit.places import Place, StorePath, place_of
from steepest.basis.disks import writing
from steepest.basis.errors import DataError, IncompleteError, UsageError

Shard = int | Literal["mended", "assured"]
"""A shard of the cascade; what a mended search found on the survivors of all shards; the full protocol, on a sample."""

AFTERWARDS_FILES = {"mended", "assured"}
"""What files of the run are called that belong to no shard."""

_PLAN_KEY, _STAGES_KEY = b"steepest_plan", b"steepest_stages"
_CONNECTIONS = 16


@final
class RunFolder:
    """Reads and writes one run, on a disk or in an object store; whatever is written appears whole or not at all.

    Raises:
        UsageError: the folder is not a run, or belongs to another plan; names the differences.
        IncompleteError: the disk is full, or the store does not answer; what is finished stays.
    """

    def __init__(self, path: str | Place) -> None:
        self.path = place_of(path)

    @property
    def manifest_path(self) -> Place:
        """Where the manifest lies."""
        return self.path / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """Return the manifest.

        Raises:
            UsageError: there is none, or it cannot be read.
        """
        try:
            found = json.loads(self.manifest_path.read_bytes().decode("utf-8"))
        except FileNotFoundError:
            raise UsageError(f"{self.path} is not a run: it has no manifest.json. See `steepest runs list`.") from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise DataError(f"{self.manifest_path} is damaged: delete the folder and run again.") from None
        if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
            raise DataError(f"{self.manifest_path} was not written by this version: give another --out.")
        return found

    def claim(self, plan: Plan) -> dict[str, Any] | None:
        """Return the manifest of an earlier start of the same plan, or None for a folder that is new or empty.

        Raises:
            UsageError: the folder holds something else.
        """
        if self.manifest_path.exists():
            manifest = self.manifest()
            differences = plan.differences(manifest["plan"])
            if differences:
                raise UsageError(
                    f"{self.path} holds another run ({'; '.join(differences)}). Give another --out; delete that "
                    "folder only if its results are not needed."
                )
            return manifest
        self.require_new()
        return None

    def require_new(self) -> None:
        """Raise unless the folder is new or empty.

        Raises:
            UsageError: it is a file, or holds something.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file: give a new or empty folder as --out.")
        if self.path.exists() and any(not _harmless(entry.name) for entry in self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and is not a run. Give a new or empty folder as --out.")

    def begin(self, manifest: dict[str, Any]) -> None:
        """Create the folder and its manifest; the manifest that another process put there in the meantime stays."""
        if isinstance(self.path, Path):
            with writing(self.path):
                for part in ("results", "artifacts"):
                    (self.path / part).mkdir(parents=True, exist_ok=True)
        with writing(self.path):
            places.create(self.manifest_path, _text(manifest))

    def amend(self, manifest: dict[str, Any]) -> None:
        """Put another manifest in place: the same run, asked for more when its shards are there."""
        self.write(self.manifest_path, _text(manifest))

    def part(self, shard: Shard) -> Place:
        """Return where the records of a shard lie."""
        name = shard if isinstance(shard, str) else f"part-{shard:05d}"
        return self.path / "results" / f"{name}.parquet"

    def done(self, shard: Shard, digest: str) -> bool:
        """Return whether the shard's file exists, is whole and carries the digest: the plan's, or `sample_key`."""
        return self._read(digest, shard) is not None

    def missing(self, shards: int, digest: str) -> list[int]:
        """Return the shards that are not done."""
        return [shard for shard, found in enumerate(self._parts(shards, digest)) if found is None]

    def commit(self, shard: Shard, columns: dict[str, list[Any]], stages: list[Stage], digest: str) -> None:
        """Write the records and the ledger of a shard."""
        schema = RECORD.with_metadata(
            {
                "schema_version": str(SCHEMA_VERSION),
                _PLAN_KEY: digest,
                _STAGES_KEY: json.dumps([asdict(stage) for stage in stages]),
            }
        )
        table = pa.table(columns, schema=schema)
        self.write(self.part(shard), lambda stream: pq.write_table(table, stream, compression="zstd"))

    def save_arrays(self, name: str, arrays: dict[str, Any]) -> None:
        """Write arrays to artifacts/`name`.npz."""
        place = self.path / "artifacts" / f"{name}.npz"
        self.write(place, lambda stream: np.savez_compressed(stream, **arrays))

    def arrays(self, pattern: str) -> list[Place]:
        """Return the array files in artifacts/ whose names match, sorted."""
        folder = self.path / "artifacts"
        found = [place for place in folder.iterdir() if fnmatch(place.name, pattern)] if folder.exists() else []
        return sorted(found, key=lambda place: place.name)

    def table(self, shards: int) -> pa.Table:
        """Return all records, sorted by example id.

        Raises:
            IncompleteError: shards are missing, or the sample of survivors; the same command again finishes them.
        """
        found, sample = self.unassured(shards), self.assured()
        return found if sample is None else merged(found, sample, ASSURANCE)

    def assured(self) -> pa.Table | None:
        """Return the records of the full protocol on a sample of the survivors, or None where none was asked for.

        Raises:
            IncompleteError: it was asked for and is missing; the same command again finishes it.
        """
        found = self._sample()
        if found is not None:
            return found.replace_schema_metadata(None)
        if self.manifest()["plan"]["assure"]:
            raise IncompleteError(
                f"{self.path} is incomplete: the full protocol on a sample of the survivors is missing. Run the same "
                f"command again, without --shard and with --out {self.path}; it continues where it stopped."
            )
        return None

    def unassured(self, shards: int) -> pa.Table:
        """Return the records of the cascade and of the search that was mended, sorted by example id; as `first`."""
        found, more = self.first(shards), self._mended()
        return found if more is None else merged(found, more.replace_schema_metadata(None), MENDED)

    def diagnosis(self) -> dict[str, Any] | None:
        """Return what the diagnosis found, or None where there is none of these records."""
        try:
            found: dict[str, Any] = json.loads(self._diagnosis_path.read_bytes().decode("utf-8"))
        except (OSError, ValueError):
            return None
        return found if found.get("plan_hash") == self.manifest()["plan_hash"] else None

    @property
    def diagnosed(self) -> bool:
        """Whether a diagnosis of these records is there, and what its mended search found, whole."""
        found = self.diagnosis()
        return found is not None and not (found["mended"] and self._read_mended() is None)

    def sample_key(self, digest: str, count: int) -> str:
        """Return what names the sample of `count` survivors; those of a mended search are others."""
        found = self.diagnosis()
        return sample_key(digest, count, mended=found is not None and bool(found["mended"]))

    def keep_diagnosis(self, found: dict[str, Any]) -> None:
        """Write down what the diagnosis found; it is complete when this file is there."""
        self.write(self._diagnosis_path, _text({**found, "plan_hash": self.manifest()["plan_hash"]}))

    def first(self, shards: int) -> pa.Table:
        """Return the records of the cascade alone, sorted by example id.

        Raises:
            IncompleteError: shards are missing; the same command again finishes them.
        """
        found = self._parts(shards, self.manifest()["plan_hash"])
        parts = [part.replace_schema_metadata(None) for part in found if part is not None]
        missing = shards - len(parts)
        if missing:
            raise IncompleteError(
                f"{self.path} is incomplete: {missing} of {shards} shards are missing. "
                "Run the same command again; it continues where it stopped."
            )
        return pa.concat_tables(parts).sort_by("example_id") if parts else RECORD.empty_table()

    def ledger(self, shards: int, *, first: bool = False) -> list[Stage]:
        """Return the stages in order, each added up over all shards; `first` leaves out what was done afterwards."""
        total: dict[tuple[str, float], Stage] = {}
        later = [] if first else [part for part in (self._mended(), self._sample()) if part is not None]
        for part in (*self._parts(shards, self.manifest()["plan_hash"]), *later):
            for row in json.loads(part.schema.metadata.get(_STAGES_KEY, b"[]") if part else b"[]"):
                fresh = Stage(name=row["name"], epsilon=row["epsilon"], certifier=row["certifier"])
                stage = total.setdefault((row["name"], row["epsilon"]), fresh)
                for key in ("entered", "broken", "forwards", "backwards", "seconds"):
                    setattr(stage, key, getattr(stage, key) + row[key])
                if row["proven"] is not None:
                    stage.proven = (stage.proven or 0) + row["proven"]
                stage.notes = tuple(dict.fromkeys((*stage.notes, *row["notes"])))
        return list(total.values())

    def write(self, place: Place, content: bytes | Callable[[IO[bytes]], object]) -> None:
        """Write a file of the run: a reader sees the old one or the whole new one."""
        with writing(self.path):
            places.write(place, content)

    @property
    def _diagnosis_path(self) -> Place:
        return self.path / "results" / "diagnosis.json"

    def _mended(self) -> pa.Table | None:
        """Read what a mended search found; None where nothing was mended.

        Raises:
            IncompleteError: the file is missing or damaged; the same command again makes it anew.
        """
        if self.diagnosed:
            found = self.diagnosis()
            return self._read_mended() if found is not None and found["mended"] else None
        if self.diagnosis() is None:
            return None
        raise IncompleteError(
            f"{self.path} is incomplete: what its mended search found is missing. Run the same command again, without "
            f"--shard and with --out {self.path}."
        )

    def _read_mended(self) -> pa.Table | None:
        return self._read(mended_key(self.manifest()["plan_hash"]), "mended")

    def _sample(self) -> pa.Table | None:
        """Read the sample of survivors that was asked for last, None where none was, or it is missing."""
        manifest = self.manifest()
        count = manifest["plan"]["assure"]
        return self._read(self.sample_key(manifest["plan_hash"], count), "assured") if count else None

    def _parts(self, shards: int, digest: str) -> list[pa.Table | None]:
        """Read all shards; a store answers many requests at once."""
        if isinstance(self.path, StorePath):
            with ThreadPoolExecutor(_CONNECTIONS) as pool:
                return list(pool.map(partial(self._read, digest), range(shards)))
        return [self._read(digest, shard) for shard in range(shards)]

    def _read(self, digest: str, shard: Shard) -> pa.Table | None:
        """Return the records of a shard, None unless they are whole and carry the digest."""
        try:
            # Threads of a read that outlive it abort a process which ends just then (arrow issue 33975).
            found = pq.read_table(pa.BufferReader(self.part(shard).read_bytes()), use_threads=False)
        except (pa.ArrowInvalid, OSError):
            return None
        return found if (found.schema.metadata or {}).get(_PLAN_KEY) == digest.encode() else None


def _text(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _harmless(name: str) -> bool:
    """Whether a start that was cut off before its manifest, or is still there, leaves this behind."""
    return name in (".DS_Store", "results", "artifacts") or (name.startswith(".manifest.") and name.endswith(".tmp"))
