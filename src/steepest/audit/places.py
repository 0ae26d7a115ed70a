"""Where a run lies: a folder on a disk, or a prefix in an object store (s3://, gs://), asked in the same words."""

from __future__ import annotations

import io
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar, final
from urllib.parse import parse_qsl

from pyarrow import fs

from steepest.basis.disks import flushed
from steepest.basis.errors import IncompleteError, UsageError

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the attempts of one request; then the run stops and can be continued."""

_REFUSED = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "PERMISSION_DENIED")
_OPTIONS = ("endpoint_override", "region", "scheme")

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StorePath:
    """A place in an object store, in the words of `pathlib`; "folders" are beginnings of names.

    Requests that fail are repeated with growing waits. Files appear whole: a PUT is atomic.

    Attributes:
        scheme: "s3" or "gs".
        key: bucket/path.
        options: the url's query: endpoint_override, region, scheme.

    Raises:
        UsageError: the store refuses: no such bucket, no permission.
        IncompleteError: the store does not answer; the same command continues.

    >>> place_of("s3://bucket/runs/a") / "manifest.json"
    s3://bucket/runs/a/manifest.json
    """

    scheme: str
    key: str
    options: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}{'?' if self.options else ''}{self.options}"

    __repr__ = __str__

    def __truediv__(self, name: str) -> StorePath:
        return replace(self, key=f"{self.key}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    def exists(self) -> bool:
        """Return whether there is a file, or any file below."""
        return self._kind() is not fs.FileType.NotFound

    def is_dir(self) -> bool:
        """Return whether files lie below."""
        return self._kind() is fs.FileType.Directory

    def iterdir(self) -> Iterator[StorePath]:
        """Yield what lies directly below."""
        selector = fs.FileSelector(self.key, allow_not_found=True)
        for info in self._asked(lambda store: store.get_file_info(selector)):
            yield replace(self, key=info.path)

    def read_bytes(self) -> bytes:
        """Return the content.

        Raises:
            FileNotFoundError: there is no such file.
        """

        def read(store: Any) -> bytes:
            with store.open_input_file(self.key) as stream:
                return bytes(stream.read())

        return self._asked(read)

    def write(self, content: bytes) -> None:
        """Put the file there in one request, or one upload of parts that appears at its end."""

        def put(store: Any) -> None:
            with store.open_output_stream(self.key) as stream:
                stream.write(content)

        try:
            self._asked(put)
        except FileNotFoundError:
            bucket = self.key.partition("/")[0]
            raise UsageError(f"{self} cannot be written: there is no bucket {bucket!r}; make it first.") from None

    def _kind(self) -> Any:
        return self._asked(lambda store: store.get_file_info(self.key)).type

    def _asked(self, request: Callable[[Any], T]) -> T:
        """Send one request, again and again while the store does not answer."""
        for wait in (*WAITS, None):
            try:
                return request(_store(self.scheme, self.key.partition("/")[0], self.options))
            except FileNotFoundError:
                raise
            except OSError as error:
                said = str(error).strip().splitlines()[0]
                if isinstance(error, PermissionError) or any(word in said.upper() for word in _REFUSED):
                    raise UsageError(f"{self} is refused ({said}): check bucket, region and keys.") from None
                if wait is None:
                    raise IncompleteError(
                        f"{self} does not answer ({said}): what is finished is kept. Run the same command again when "
                        "it does; it continues where it stopped."
                    ) from None
                time.sleep(wait)
        raise AssertionError


Place = Path | StorePath
"""Either answers `/`, `name`, `exists`, `is_dir`, `iterdir` and `read_bytes`."""


def place_of(given: str | Place) -> Place:
    """Return the place that a path or a url names.

    Raises:
        UsageError: another kind of url, an option that no store has, or keys inside the url.

    >>> place_of("runs/a")
    PosixPath('runs/a')
    """
    found = re.fullmatch(r"(\w[\w+.-]*)://([^?]*)(?:\?(.*))?", given) if isinstance(given, str) else None
    if found is None:
        return given if isinstance(given, StorePath) else Path(given)
    scheme, key, options = found[1].lower(), found[2].strip("/"), found[3] or ""
    if scheme not in ("s3", "gs") or not key:
        raise UsageError(f"{given!r} is not a place for a run: give a folder, s3://bucket/path or gs://bucket/path.")
    if "@" in key.partition("/")[0]:
        raise UsageError(
            f"a {scheme}:// url with keys in it would be written into the run: give them in the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; GOOGLE_APPLICATION_CREDENTIALS)."
        )
    unknown = [name for name, _ in parse_qsl(options, keep_blank_values=True) if name not in _OPTIONS]
    if unknown:
        raise UsageError(f"{given!r} has the option {unknown[0]!r}; allowed are {', '.join(_OPTIONS)}.")
    return StorePath(scheme=scheme, key=key, options=options)


def write(place: Place, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file so that a reader sees the old one or the whole new one, whenever this process ends.

    On a disk it is written beside, flushed and renamed; its folder must exist. `content` may fill a stream.

    Raises:
        OSError: a disk cannot be written.
    """
    if isinstance(place, StorePath):
        place.write(content if isinstance(content, bytes) else _filled(content))
        return
    beside = _beside(place)
    try:
        flushed(beside, content)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def create(place: Place, content: bytes) -> bool:
    """Write a file unless there is one; return whether it was written.

    Of two processes that do this at once on a disk, one succeeds. Object stores cannot promise that: ask afterwards
    which file stands.
    """
    if isinstance(place, StorePath):
        if place.exists():
            return False
        place.write(content)
        return True
    beside = _beside(place)
    try:
        flushed(beside, content)
        place.hardlink_to(beside)
    except FileExistsError:
        return False
    except (PermissionError, NotImplementedError):  # a file system without links
        if place.exists():
            return False
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    return True


def _beside(place: Path) -> Path:
    # Not the process's number: two machines on one file system may have the same.
    return place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")


def _filled(content: Callable[[IO[bytes]], object]) -> bytes:
    # Whole before the first byte leaves: closing a stream after an interruption would commit a part of a file.
    stream = io.BytesIO()
    content(stream)
    return stream.getvalue()


@cache
def _store(scheme: str, bucket: str, options: str) -> Any:
    asked = dict(parse_qsl(options))
    if scheme == "gs":
        return fs.GcsFileSystem(
            endpoint_override=asked.get("endpoint_override"),
            scheme=asked.get("scheme"),
            anonymous="endpoint_override" in asked,
            retry_time_limit=timedelta(seconds=sum(WAITS)),
        )
    here = os.environ
    endpoint = asked.get("endpoint_override") or here.get("AWS_ENDPOINT_URL_S3") or here.get("AWS_ENDPOINT_URL") or ""
    region = asked.get("region") or here.get("AWS_REGION") or here.get("AWS_DEFAULT_REGION")
    before, _, host = endpoint.rpartition("://")
    return fs.S3FileSystem(
        endpoint_override=host or None,
        scheme=asked.get("scheme") or before or "https",
        region=region or ("us-east-1" if host else fs.resolve_s3_region(bucket)),
        connect_timeout=10,
        request_timeout=60,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )
