"""A part of a run, for arrays of jobs, and folders of parts joined into one run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from steepest.audit.places import Place
from steepest.audit.store import AFTERWARDS_FILES, RunFolder
from steepest.basis.errors import IncompleteError, UsageError


@dataclass(frozen=True, slots=True)
class Part:
    """Every shard whose number is `index` − 1 modulo `count`.

    >>> Part.parse("2/3").of(7)
    [1, 4]
    """

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "i/n".

        Raises:
            UsageError: it is not that, or i is not one of 1 to n.
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"shard={text!r} is not a part: give i/n with i from 1 to n, e.g. 1/4 … 4/4.")
        return cls(int(found[1]), int(found[2]))

    def of(self, shards: int) -> list[int]:
        """Return the part's shards of so many."""
        return list(range(self.index - 1, shards, self.count))


class PartFinished(IncompleteError):
    """A part of a run is finished and others are not there yet: no failure, but there is no number to report.

    >>> PartFinished.exit_code
    0
    """

    exit_code = 0


def require_all(folder: RunFolder, part: Part) -> None:
    """Raise unless every shard of the run is there.

    Raises:
        PartFinished: says what to do when the other parts are finished too.
    """
    manifest = folder.manifest()
    missing = folder.missing(manifest["shards"], manifest["plan_hash"])
    if missing:
        raise PartFinished(
            f"part {part.index}/{part.count} is finished in {folder.path}; {len(missing)} of {manifest['shards']} "
            "shards belong to other parts. When those are finished: `steepest runs merge OUT IN...`, or with one "
            "shared folder the same command once more."
        )


def merge(out: str | Place, sources: Sequence[str | Place]) -> RunFolder:
    """Join folders of parts of one run in `out`, which may be one of them, and return it.

    A sample of survivors (`assure`) is drawn from all shards, so by the command without --shard on `out` afterwards.

    Raises:
        UsageError: a folder is no run, or belongs to another plan; names the difference.
        IncompleteError: shards are missing in all of them; what was found is in `out`, and can be added to.
    """
    folders = [RunFolder(source) for source in sources]
    if not folders:
        raise UsageError("no folder was given to merge: write `steepest runs merge OUT IN...`.")
    manifests = [folder.manifest() for folder in folders]
    first, target = manifests[0], RunFolder(out)
    held = [(target, target.manifest())] if target.manifest_path.exists() else []
    for folder, manifest in [*zip(folders, manifests, strict=True), *held]:
        _require_same_plan(folder, manifest, folders[0], first)
    if not held:
        target.require_new()
        target.begin({**first, "run": str(target.path)})
    digest, shards = first["plan_hash"], first["shards"]
    for folder in folders:
        _copy(folder, target, set(folder.missing(shards, digest)), target.missing(shards, digest))
    left = target.missing(shards, digest)
    if left:
        shown = f"{', '.join(map(str, left[:8]))}{', …' if len(left) > 8 else ''}"
        raise IncompleteError(
            f"{target.path} is incomplete: {len(left)} of {shards} shards are in none of the folders (numbers {shown}, "
            "counted from 0). Finish those parts by their own commands, then merge again."
        )
    return target


def _copy(source: RunFolder, target: RunFolder, lacking: set[int], wanted: Sequence[int]) -> None:
    """Copy the shards that are wanted, each after its pictures: the records are the commit."""
    kept: dict[int, list[Place]] = {}
    for place in source.arrays("*-*.npz"):
        if not AFTERWARDS_FILES & set(place.name.split("-")):  # those are of no shard
            kept.setdefault(int(place.name.removesuffix(".npz").rpartition("-")[2]), []).append(place)
    for shard in wanted:
        if shard not in lacking:
            for place in kept.get(shard, []):
                target.write(target.path / "artifacts" / place.name, place.read_bytes())
            target.write(target.part(shard), source.part(shard).read_bytes())


def _require_same_plan(folder: RunFolder, manifest: dict[str, Any], other: RunFolder, first: dict[str, Any]) -> None:
    if manifest["plan_hash"] == first["plan_hash"]:
        return
    mine, theirs = manifest["plan"], first["plan"]
    differences = [
        f"{name}: {theirs.get(name)} → {mine.get(name)}"
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]
    raise UsageError(
        f"{folder.path} is not of the same run as {other.path} ({'; '.join(differences)}): merge parts of one plan. "
        "All jobs need the same command apart from --shard and --out, and the same --batch-size and OMP_NUM_THREADS; "
        "in folders of their own also --precision exact, or each chooses its twin by a measurement of its own."
    )
