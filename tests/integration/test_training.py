"""`python -m models.training` as its user meets it."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.skipif(not (DATA / "manifest.csv").exists(), reason=f"no recordings at {DATA}")
def test_ctrl_c_while_pictures_are_drawn_ends_it_at_once_and_keeps_them(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "models.training", "--data", DATA, "--only=0", "--cache", tmp_path],
        start_new_session=True,
        # A shell that runs the tests in its background has its children deaf to an interrupt.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 240
            while not list(tmp_path.rglob("*.npz")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            os.killpg(process.pid, signal.SIGINT)
            said, _ = process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    assert process.returncode == 1
    assert "Aborted!" in said
    assert "Traceback" not in said
    assert list(tmp_path.rglob("*.npz"))
