"""A run is a folder: manifest.json, results/*.parquet, artifacts/. The file is the commit."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steepest.audit.contract import RECORD, SCHEMA_VERSION, Plan, Stage
from steepest.audit.merging import merged
from steepest.basis.errors import DataError, IncompleteError, UsageError

Part = int | Literal["assured"]
"""A shard of the cascade, or what the full protocol found on a sample of the survivors of all shards."""

_PLAN_KEY, _STAGES_KEY = b"steepest_plan", b"steepest_stages"


@final
class RunFolder:
    """Reads and writes one run; whatever is written appears whole or not at all.

    Raises:
        UsageError: the folder is not a run, or belongs to another plan; names the differences.
        IncompleteError: the disk is full; what is finished stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest_path(self) -> Path:
        """Where the manifest lies."""
        return self.path / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """Return the manifest.

        Raises:
            UsageError: there is none, or it cannot be read.
        """
        try:
            found = json.loads(self.manifest_path.read_text(encoding="utf-8"))
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
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file: give a new or empty folder as --out.")
        if self.path.exists() and any(entry.name not in _HARMLESS for entry in self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and is not a run. Give a new or empty folder as --out.")
        return None

    def begin(self, manifest: dict[str, Any]) -> None:
        """Create the folder and its manifest."""
        for part in ("results", "artifacts"):
            _disk(partial((self.path / part).mkdir, parents=True, exist_ok=True), self.path)
        text = json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True)
        self._replace(self.manifest_path, lambda path: path.write_text(text + "\n", encoding="utf-8"))

    def part(self, shard: Part) -> Path:
        """Return where the records of a shard lie."""
        name = shard if isinstance(shard, str) else f"part-{shard:05d}"
        return self.path / "results" / f"{name}.parquet"

    def done(self, shard: Part, digest: str) -> bool:
        """Return whether the shard's file exists, is whole and carries the plan's digest."""
        try:
            found = pq.read_schema(self.part(shard)).metadata or {}
        except (FileNotFoundError, pa.ArrowInvalid, OSError):
            return False
        return bool(found.get(_PLAN_KEY) == digest.encode())

    def commit(self, shard: Part, columns: dict[str, list[Any]], stages: list[Stage], digest: str) -> None:
        """Write the records and the ledger of a shard."""
        schema = RECORD.with_metadata(
            {
                "schema_version": str(SCHEMA_VERSION),
                _PLAN_KEY: digest,
                _STAGES_KEY: json.dumps([asdict(stage) for stage in stages]),
            }
        )
        table = pa.table(columns, schema=schema)
        self._replace(self.part(shard), lambda path: pq.write_table(table, path, compression="zstd"))

    def save_arrays(self, name: str, arrays: dict[str, Any]) -> Path:
        """Write arrays to artifacts/`name`.npz."""
        path = self.path / "artifacts" / f"{name}.npz"

        def write(beside: Path) -> None:
            with beside.open("wb") as stream:
                np.savez_compressed(stream, **arrays)

        self._replace(path, write)
        return path

    def arrays(self, pattern: str) -> list[Path]:
        """Return the array files in artifacts/ whose names match, sorted."""
        return sorted((self.path / "artifacts").glob(pattern))

    def table(self, shards: int) -> pa.Table:
        """Return all records, sorted by example id.

        Raises:
            IncompleteError: shards are missing, or the sample of survivors; the same command again finishes them.
        """
        found, sample = self.unassured(shards), self.assured()
        return found if sample is None else merged(found, sample)

    def assured(self) -> pa.Table | None:
        """Return the records of the full protocol on a sample of the survivors, or None where none was asked for.

        Raises:
            IncompleteError: it was asked for and is missing; the same command again finishes it.
        """
        if not self.manifest()["plan"].get("assure"):
            return None
        if not self.part("assured").exists():
            raise IncompleteError(
                f"{self.path} is incomplete: the full protocol on a sample of the survivors is missing. Run the same "
                "command again; it continues where it stopped."
            )
        return pq.read_table(self.part("assured")).replace_schema_metadata(None)

    def unassured(self, shards: int) -> pa.Table:
        """Return the records of the cascade alone, sorted by example id.

        Raises:
            IncompleteError: shards are missing; the same command again finishes them.
        """
        missing = [shard for shard in range(shards) if not self.part(shard).exists()]
        if missing:
            raise IncompleteError(
                f"{self.path} is incomplete: {len(missing)} of {shards} shards are missing. "
                "Run the same command again; it continues where it stopped."
            )
        parts = [pq.read_table(self.part(shard)).replace_schema_metadata(None) for shard in range(shards)]
        return pa.concat_tables(parts).sort_by("example_id") if parts else RECORD.empty_table()

    def ledger(self, shards: int) -> list[Stage]:
        """Return the stages in order, each added up over all shards."""
        total: dict[tuple[str, float], Stage] = {}
        sample: tuple[Part, ...] = ("assured",) if self.part("assured").exists() else ()
        for shard in (*range(shards), *sample):
            found = (pq.read_schema(self.part(shard)).metadata or {}).get(_STAGES_KEY, b"[]")
            for row in json.loads(found):
                stage = total.setdefault((row["name"], row["epsilon"]), Stage(name=row["name"], epsilon=row["epsilon"]))
                for key in ("entered", "broken", "forwards", "backwards", "seconds"):
                    setattr(stage, key, getattr(stage, key) + row[key])
                if row["proven"] is not None:
                    stage.proven = (stage.proven or 0) + row["proven"]
                stage.notes = tuple(dict.fromkeys((*stage.notes, *row["notes"])))
        return list(total.values())

    def _replace(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write beside, flush to the disk, then rename: a reader sees the old file or the whole new one."""
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            _disk(lambda: write(beside), self.path)
            with beside.open("rb") as stream:
                os.fsync(stream.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


_HARMLESS = {".DS_Store", "results", "artifacts"}
"""What a start that was cut off before its manifest leaves behind."""


def _disk(action: Callable[[], object], folder: Path) -> None:
    try:
        action()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise IncompleteError(
                f"no space left on the disk of {folder}: what is finished is kept. Free some space and run the same "
                "command again."
            ) from None
        raise UsageError(f"cannot write to {folder} ({error.strerror or error}): give another --out.") from None
