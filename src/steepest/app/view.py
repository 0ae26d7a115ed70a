"""`steepest view`: the pages of runs and trainings, served to this machine alone."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import final

from markupsafe import escape

from steepest.app import console, trainings
from steepest.app.harden import AFTER, BEFORE
from steepest.audit.api import AuditRun, open_run
from steepest.audit.places import Place, place_of
from steepest.audit.store import RunFolder
from steepest.basis.errors import SteepestError, UsageError
from steepest.report.hardening import PAGE
from steepest.report.page import render
from steepest.report.run import triples
from steepest.report.side_by_side import Entry, Training, compare

HOST = "127.0.0.1"
_NAMES = ("localhost", HOST)
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def run(runs: Sequence[str], *, port: int, browse: bool) -> None:
    """Serve runs and trainings, or those in folders, until Ctrl-C, which is the ordinary end.

    Raises:
        UsageError: a folder holds neither, or the port is taken.
    """
    shelf = Shelf([place for given in runs for place in runs_in(given)])
    with server(shelf, port) as serving:
        address = f"http://localhost:{serving.server_port}{_front(runs)}"
        console.say(f"{address} shows {shelf.says()}; Ctrl-C ends it")
        if browse:
            webbrowser.open(address)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            console.say("ended")


def runs_in(given: str) -> list[Place]:
    """Return the run or the training in a folder, with its two runs, or those in its folders.

    Raises:
        UsageError: there is none.
    """
    root = place_of(given)
    if (root / "manifest.json").exists():
        return [root]
    inside: list[Place] = sorted(root.iterdir(), key=str) if root.is_dir() else []
    entries = [root, *(entry for entry in inside if entry.is_dir())]
    places = [each for each in entries if trainings.holds_training(each) or (each / "manifest.json").exists()]
    if not places:
        raise UsageError(f"{given!r} holds no run: give the folder of a run, or one that holds runs.")
    return places


def _front(runs: Sequence[str]) -> str:
    """Where a reader begins: at the page of the only training that was named, else at the list."""
    only = place_of(runs[0])
    alone = len(runs) == 1 and trainings.holds_training(only) and (only / PAGE).exists()
    return f"/training/0/{PAGE}" if alone else "/"


def server(shelf: Shelf, port: int) -> ThreadingHTTPServer:
    """Return a server of this machine alone; port 0 takes a free one.

    Raises:
        UsageError: the port is taken or forbidden.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(Answer, shelf))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--port {port} cannot be used ({reason}): give another, or 0 for a free one.") from None


@final
class Shelf:
    """The pages of some runs and trainings by their path.

    A finished run's page is made once, at its first request; a training's is the one in its folder.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        given = tuple(dict.fromkeys(places))
        self.trainings = tuple(each for each in given if isinstance(each, Path) and trainings.holds_training(each))
        self.places = tuple(each for each in given if each not in self.trainings)
        self._made: dict[str, str] = {}
        self._lock = Lock()

    def says(self) -> str:
        """Return how much there is, in words."""
        counts = {"run": len(self.places), "training": len(self.trainings)}
        return " and ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items() if n)

    def page(self, path: str) -> str | None:
        """Return the page at a path, None where there is none.

        Raises:
            SteepestError: the run is not finished, or damaged.
        """
        makers: dict[str, Callable[[], str]] = {f"/run/{n}": partial(_page, p) for n, p in enumerate(self.places)}
        if path == "/":
            return self._comparison()
        asked = path.rstrip("/")
        if asked in (kept := self._kept()):
            return _read(kept[asked])
        if asked not in makers:
            return None
        with self._lock:  # two requests at once would draw the same page twice
            if asked not in self._made:
                self._made[asked] = makers[asked]()
            return self._made[asked]

    def _kept(self) -> dict[str, Path]:
        """The page of every training and of its runs, so placed that its links lead from one to the other."""
        names = (PAGE, *(f"{name}/{PAGE}" for name in (AFTER, BEFORE)))
        return {f"/training/{n}/{name}": folder / name for n, folder in enumerate(self.trainings) for name in names}

    def _comparison(self) -> str:
        entries, unfinished = list[Entry](), list[tuple[str, str]]()
        for number, place in enumerate(self.places):
            try:
                entries.append(_entry(open_run(place), f"/run/{number}"))
            except SteepestError as error:
                unfinished.append((str(place), str(error)))
        trained = [
            Training(
                name=str(folder),
                link=f"/training/{n}/{PAGE}" if (folder / PAGE).exists() else "",
                known=trainings.row(folder),
            )
            for n, folder in enumerate(self.trainings)
        ]
        return compare(entries, unfinished, trained)


def _entry(opened: AuditRun, link: str) -> Entry:
    manifest = RunFolder(opened.folder).manifest()
    name = str(opened.folder)
    return Entry(name=name, link=link, summary=opened.summary, manifest=manifest, records=opened.records())


def _read(page: Path) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{page} is not written yet: run the same `steepest harden` again to its end.") from None


def _page(place: Place) -> str:
    opened, folder = open_run(place), RunFolder(place)
    manifest = folder.manifest()
    return render(opened.summary, manifest, triples(folder, manifest))


@final
class Answer(BaseHTTPRequestHandler):
    """Answers GET and HEAD, to names of this machine only: another site's name that leads here is refused."""

    def __init__(self, shelf: Shelf, *rest: object) -> None:
        self._shelf = shelf
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Send a page."""
        self._send(body=True)

    def do_HEAD(self) -> None:
        """Send what would come before a page."""
        self._send(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page's requests are no result."""

    def _send(self, *, body: bool) -> None:
        status, text = self._found()
        content = text.encode()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _found(self) -> tuple[int, str]:
        if (self.headers.get("Host") or "").rpartition(":")[0] not in _NAMES:
            return 403, _said("This server answers to localhost only.")
        try:
            found = self._shelf.page(self.path.partition("?")[0])
        except SteepestError as error:
            return 409, _said(str(error))
        return (404, _said("There is no such page.")) if found is None else (200, found)


def _said(words: str) -> str:
    links = '<p><a href="/">All runs</a></p>'
    return f'<!doctype html><html lang="en"><title>steepest</title><p>{escape(words)}</p>{links}</html>'
