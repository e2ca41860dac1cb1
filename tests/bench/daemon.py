"""What the running daemon keeps in memory: `gunfire-node run` on a virtual card, by /proc.

The street is played to it over and over. What the card itself has in memory, a file that it maps,
is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tests.hil.process import GUNFIRE_NODE, resident_bytes
from tests.hil.virtual_card import VirtualCard, build_plugin, missing_tools

TIMES: Final = 6
OPENING_S: Final = 30.0
MODULE: Final = "node.cli.run"
ALSA: Final = Path("/usr/share/alsa/alsa.conf")
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1"}  # as the unit has it


def seconds_to_import() -> float:
    """Give the time that a new process takes until it has all that the daemon imports."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {MODULE}"], check=True)
    return time.perf_counter() - start


def daemon_bytes(frames: npt.NDArray[np.float64], rate_hz: int, folder: Path) -> int | None:
    """Give what the daemon has in memory after `TIMES` streets; None where no card can be built."""
    if missing_tools() is not None:
        return None
    pcm = np.round(np.clip(frames, -1, 1 - 2**-31) * 2.0**31).astype(np.int32)
    card = VirtualCard(folder, build_plugin(folder), pcm, rate_hz, loop=True)
    # The unit hides what a desktop's packages have set up there (docs/decisions/0023).
    alsa = folder / "alsa.conf"
    alsa.write_text(ALSA.read_text().replace('"/etc/alsa/conf.d"', ""))
    card.configuration.write_text(card.configuration.read_text().replace(f"<{ALSA}>", f"<{alsa}>"))
    settings = folder / "node.toml"
    settings.write_text(
        f'[node]\nid = "bench-1"\nsite = "bench"\n'
        f'[capture]\ndevice = "{card.name}"\nchannels = {frames.shape[1]}\n'
        f'array = "tetrahedron_200mm"\norder_fixed = true\n'
        f'[outbox]\npath = "{folder}/outbox.sqlite3"\n'
        f'[integrity]\nkey_file = "{folder}/node.key"\n'
        f'[mqtt]\nurl = "mqtt://127.0.0.1:1"\n'
    )
    daemon = subprocess.Popen(
        [*GUNFIRE_NODE, "run", "--config", str(settings)],
        env=os.environ | card.environment | ENVIRONMENT,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(folder / "truth.json", daemon)
        time.sleep(TIMES * len(pcm) / rate_hz)
        return resident_bytes(daemon.pid, without="samples.raw")
    finally:
        daemon.terminate()
        daemon.wait()


def _wait_for(sign: Path, daemon: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + OPENING_S
    while not sign.exists():
        if daemon.poll() is not None or time.monotonic() > until:
            raise RuntimeError("the daemon did not open its card")
        time.sleep(0.05)
