"""How a node does, told where it stands: light, service manager, and a file that `status` reads.

Beside the daemon, whose loop calls it: `heard` with every block, `show` as often as it likes. All
that is looked at is written into one book of findings (node/board/findings.py), and what the light,
the service manager and the file say is read from there. The service manager's watchdog is fed only
here, and only when audio has advanced.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self

from node.board import Board, BoardReading, Code
from node.board.findings import Book, Finding, condition, light_code
from node.board.metrics import metrics_server
from node.board.service import Service
from node.deliver import is_of_certificates
from node.detect.microphones import MicrophoneWatch
from node.ears import Ears
from node.errors import (
    BoardError,
    DeviceError,
    GunfireNodeError,
    IdentityError,
    ModelError,
    OutboxError,
)
from node.examine import (
    board_findings,
    finding_record,
    light_record,
    memory_finding,
    microphone_findings,
    resident_bytes,
    room_finding,
    setup_findings,
)
from node.settings import BoardSettings, Settings
from node.types import Block

log = logging.getLogger(__name__)

SHOW_S: Final = 1.0
# For so long a fault that ends the run is shown before it does.
BLINK_S: Final = 60.0
# So long a start may take until it says again that it waits.
PATIENCE_S: Final = 30.0
# A broker that is away for less is no news on the ladder: each reconnection would be.
BROKER_AWAY_S: Final = 15.0
# A disk that had too little room has enough once so much more is free: each change is news.
AMPLE_BYTES: Final = 64 * 2**20
# How the last run ended is told for so long.
TELL_LAST_RUN_S: Final = 600.0
LAST_END: Final = "last-end"
# So long a self-test gathers anew what is shown after it.
SELF_TEST_S: Final = 3.0
PASSED_S: Final = 5.0
# Before what to do about certificates (node/deliver/tls.py).
_TO_DO: Final = re.compile("[;:] (?=check |name |put |run |set )")
# What systemd calls the ways in which a run may end (systemd.exec(5), $SERVICE_RESULT).
ENDS: Final = {
    "watchdog": "hung, and was ended by the watchdog",
    "oom-kill": "used up its memory, and was ended",
    "core-dump": "crashed",
    "signal": "was killed",
    "exit-code": "ended with an error",
    "timeout": "did not start or end in time",
    "protocol": "ended before it heard anything",
}


class Vitals:
    """Gathers what is found on a node, and shows it.

    Used as a context manager; entering opens the board. A board that does not open is told, and
    keeps nothing from going on.

    Parameters
    ----------
    settings, ears
        Of this node.
    service
        Who started it.
    """

    def __init__(self, settings: Settings, ears: Ears, service: Service) -> None:
        self.book = Book()
        self.service = service
        self._file = settings.health.status_file
        self._board_settings = settings.board
        self._outbox = settings.outbox
        self._setup_folder = settings.health.setup_folder
        self._board = Board(settings.board)
        self._watch = MicrophoneWatch(
            ears.described.sample_rate_hz,
            settings.capture.channels,
            microphones=ears.microphones,
            order=ears.order,
        )
        self._advanced = False
        self._heard = (0, 0)  # stream, end sample
        self._hears = False
        self._show_again_s = self._self_test_s = -math.inf
        self._connected_s = time.monotonic()
        self._last_run_until_s = time.monotonic() + TELL_LAST_RUN_S
        self._file_trouble = ""
        self._metrics = settings.health.metrics
        self._record: dict[str, Any] = {}
        self._open = ExitStack()
        self._write_last_run()

    def __enter__(self) -> Self:
        self._open.enter_context(self._board)
        if self._metrics is not None:
            try:
                self._open.enter_context(metrics_server(self._metrics, lambda: self._record))
            except BoardError as error:
                log.error("%s", error)
                self.book.warn("metrics", str(error))
        return self

    def __exit__(self, *exc: object) -> None:
        self.service.stopping()
        with suppress(OSError):
            if self._file is not None and self._record:  # another node's is left alone
                self._file.unlink(missing_ok=True)
        self._open.close()

    @property
    def board(self) -> BoardReading:
        """What light, button, switch, thermometers and supply say now."""
        return self._board.reading()

    def heard(self, block: Block) -> None:
        """Take the next block of the card: that is what "alive" means."""
        heard = (block.stream, block.end_sample)
        self._advanced |= heard > self._heard
        self._heard = heard
        self._hears = True
        self._watch.push(block)

    def connected(self, connected: bool, reasons: tuple[str, ...]) -> None:
        """Take how sending goes."""
        now_s = time.monotonic()
        if connected:
            self._connected_s = now_s
        away_s = now_s - self._connected_s
        # The operator's, and nothing that whoever stands below the light could mend.
        of_certificates = tuple(filter(is_of_certificates, reasons))
        if of_certificates:
            # What is wrong, and what to do.
            parted = [_TO_DO.split(reason, maxsplit=1) for reason in of_certificates]
            advice = dict.fromkeys(step for _, *steps in parted for step in steps)
            self.book.warn("certificate", "; ".join(what for what, *_ in parted), "; ".join(advice))
        else:
            self.book.settle("certificate")
        # A disk that is full keeps what was acknowledged from being taken out of the outbox.
        of_outbox = tuple(r for r in reasons if r.startswith("outbox "))
        if of_outbox and not self.book.says("outbox"):
            self.book.write(Finding("outbox", "warn", "; ".join(of_outbox), which="sending"))
        else:
            self.book.settle("outbox", which="sending")
        reasons = tuple(r for r in reasons if r not in of_certificates and r not in of_outbox)
        if reasons and (connected or away_s >= BROKER_AWAY_S):
            self.book.warn("broker", "; ".join(reasons))
        elif away_s >= BROKER_AWAY_S:
            self.book.warn("broker", f"not reached for {away_s:.0f} s")
        else:
            self.book.settle("broker", "connected" if connected else "not reached yet")

    def show(self, more: Callable[[], Mapping[str, Any]]) -> None:
        """Show all that is known, about once a second; what `more` gives goes into the file."""
        now_s = time.monotonic()
        if now_s < self._show_again_s:
            return
        self._show_again_s = now_s + SHOW_S
        self._look()
        found = tuple(self.book)
        code = self._code(found, now_s)
        self._board.show(code)
        self.service.status(self._sentence())
        if self._advanced:
            self._advanced = False
            self.service.ready()
            self.service.alive()
        elif not self._hears:
            self.service.wait(PATIENCE_S)
        self._save(code, found, more())

    def take_self_test(self) -> bool:
        """Say once whether somebody asked for a self-test; the light shows that it runs."""
        if not self._board.take_self_test():
            return False
        self._self_test_s = time.monotonic()
        return True

    def _look(self) -> None:
        """Write down what board and microphones say now."""
        for finding in board_findings(self._board.reading(), self._board_settings):
            self.book.write(finding)
        if self._hears:
            for finding in microphone_findings(self._watch.states):
                self.book.write(finding)
        self.book.write(memory_finding(resident_bytes()))
        more_bytes = AMPLE_BYTES if self.book.says("disk") else 0
        try:
            self.book.write(room_finding(self._outbox.path, self._outbox.max_bytes, more_bytes))
        except OSError:
            self.book.settle("disk")
        for finding in setup_findings(self._setup_folder):
            self.book.write(finding)
        if time.monotonic() > self._last_run_until_s:
            self.book.settle("last run")

    def _code(self, found: tuple[Finding, ...], now_s: float) -> Code:
        since_s = now_s - self._self_test_s
        if since_s < SELF_TEST_S:
            return Code.SELF_TEST
        if not self._hears:
            fault = light_code(f for f in found if f.verdict == "fail")
            return fault if fault.is_fault else Code.STARTING
        code = light_code(found)
        return Code.PASSED if code is Code.WELL and since_s < SELF_TEST_S + PASSED_S else code

    def _sentence(self) -> str:
        wrong = [f"{f.name}: {f.figure}" for f in self.book.wrong()]
        return "; ".join(["hears" if self._hears else "does not hear yet", *wrong])

    def _write_last_run(self) -> None:
        """Read how the run before ended, which the unit has written down."""
        folder = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        if not folder:
            return
        path = Path(folder) / LAST_END
        try:
            result, _code, status = path.read_text("utf-8").split()
            path.unlink()
        except (OSError, ValueError):
            return
        if how := ENDS.get(result):
            told = f"the last run {how}"
            if result in ("exit-code", "signal", "core-dump"):
                told += f" ({status})"
            log.warning("%s", told)
            self.book.warn("last run", told)

    def _save(self, code: Code, found: tuple[Finding, ...], more: Mapping[str, Any]) -> None:
        """Put all into the file, at once and whole: it is in memory, and costs the disk nothing."""
        record = self._record = {
            "written_monotonic_s": time.monotonic(),
            "pid": os.getpid(),
            "hears": self._hears,
            "condition": condition(found),
            "light": light_record(code),
            "checks": [finding_record(f) for f in found],
            "microphones": [asdict(state) for state in self._watch.states],
            **more,
        }
        if self._file is None:
            return
        beside = self._file.with_name(self._file.name + ".new")
        try:
            beside.unlink(missing_ok=True)
            with beside.open("x", encoding="utf-8") as new:  # through no link or FIFO of others
                new.write(json.dumps(record, ensure_ascii=False))
            beside.chmod(0o644)
            beside.rename(self._file)
            self._file_trouble = ""
        except OSError as error:
            if not self._file_trouble:
                log.info("no %s for `gunfire-node status`: %s", self._file, error.strerror)
            self._file_trouble = str(error)


def blink_until(
    stopped: Callable[[], bool],
    error: GunfireNodeError,
    settings: BoardSettings,
    service: Service,
) -> None:
    """Show for a minute, or until stopped, what a run under a service manager ends by."""
    if not service.supervised:
        return
    code = next((c for kind, c in _ENDED_BY if isinstance(error, kind)), Code.SETTINGS)
    until_s = time.monotonic() + BLINK_S
    with Board(settings) as board:
        while time.monotonic() < until_s and not stopped():
            board.show(code)
            service.status(str(error))
            service.wait(PATIENCE_S)
            time.sleep(SHOW_S / 4)


_ENDED_BY: Final[tuple[tuple[type[GunfireNodeError], Code], ...]] = (
    (DeviceError, Code.SOUND_CARD),
    (IdentityError, Code.KEY),
    (OutboxError, Code.DISK),
    (ModelError, Code.MODEL),
)
