"""`steepest view`: pages of runs, to this machine alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from steepest.app.view import Shelf, runs_in, server
from tests.app.material import ASK, QUICK, answered, refused
from tests.architecture.tree import SOURCE


@pytest.fixture
def port(place: Path) -> Iterator[int]:
    """The port on which two runs and a damaged one are served."""
    answered("audit", *ASK, *QUICK, "--out", "runs/a", "--no-diagnose")
    shutil.copytree(place / "runs" / "a", place / "runs" / "b")
    (place / "runs" / "c").mkdir()
    (place / "runs" / "c" / "manifest.json").write_text("{")
    (place / "runs" / "empty").mkdir()
    with server(Shelf(runs_in("runs")), 0) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving.server_port
        serving.shutdown()
        thread.join()


def asked(port: int, path: str, method: str = "GET", host: str = "localhost") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_runs_are_listed_compared_and_shown(port: int) -> None:
    status, text = asked(port, "/")
    assert status == 200 and "2 runs side by side" in text and "0 of 60 shared examples changed" in text
    assert 'href="/run/0"' in text and 'href="/run/1"' in text and "is damaged" in text
    status, page = asked(port, "/run/1?x=1")
    assert status == 200 and page == Path("runs/b/report.html").read_text(encoding="utf-8")
    assert asked(port, "/run/1/") == (200, page)
    assert asked(port, "/run/0", "HEAD") == (200, "")


def test_what_is_not_there_or_not_for_others_is_refused(port: int) -> None:
    assert asked(port, "/run/9")[0] == 404 and asked(port, "/../data.npz")[0] == 404
    status, text = asked(port, "/run/2")
    assert status == 409 and "is damaged" in text
    # A name of another site that was made to lead here must not read the pages.
    assert asked(port, "/", host="evil.example")[0] == 403
    assert asked(port, "/", "POST")[0] == 501
    refused("view", "runs/a", "--port", str(port), says=(f"--port {port} cannot be used", "0 for a free one"))
    refused("view", "runs/a", "--port", "70000", says=("--port 70000 cannot be used",))


def test_a_folder_without_runs_is_refused(place: Path) -> None:
    (place / "sub").mkdir()
    refused("view", "sub", says=("'sub' holds no run",))
    refused("view", "nowhere", says=("'nowhere' holds no run",))


def test_ctrl_c_is_the_ordinary_end(place: Path) -> None:
    (place / "run").mkdir()
    (place / "run" / "manifest.json").write_text("{}")
    process = subprocess.Popen(
        [sys.executable, "-m", "steepest", "view", "run", "--port", "0"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets its background jobs ignore Ctrl-C, and whatever they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://localhost:") and "shows 1 run;" in line
    port = int(line.split(":")[2].partition("/")[0])
    assert asked(port, "/")[0] == 200
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and rest == "ended\n" and errors == ""
