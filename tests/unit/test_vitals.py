"""How a node shows how it does: to its service manager, in its file, by its light."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory

from node.board import Code
from node.board.findings import light_code
from node.board.service import Service
from node.deliver.tls import Validity
from node.ears import Ears
from node.errors import IdentityError
from node.examine import setup_findings
from node.settings import Settings
from node.status import LocalStatus
from node.types import Block
from node.vitals import BLINK_S, PATIENCE_S, SHOW_S, Vitals, blink_until
from provisioning.places import Places
from provisioning.report import write
from tests.hil.service_manager import ServiceManager
from tests.hil.virtual_receiver import free_port

RATE = 48_000
DAY_NS = 86_400 * 10**9


def settings(folder: Path, **sections: dict[str, Any]) -> Settings:
    return Settings.model_validate(
        {"capture": {"channels": 2}, "health": {"status_file": folder / "status.json"}} | sections
    )


def vitals(folder: Path, manager: ServiceManager | None = None, **sections: Any) -> Vitals:
    said = settings(folder, **sections)
    service = Service({} if manager is None else manager.environment)
    return Vitals(said, Ears(said, RATE), service)


def sound(second: int, channels: int = 2) -> Block:
    rng = np.random.default_rng(second)
    frames = (rng.normal(0, 1e-3, (RATE, channels)) * 2**31).astype(np.int32)
    return Block(second * RATE, frames, RATE)


def facts() -> dict[str, Any]:
    return {
        "node_id": "roof-1",
        "site": "test",
        "firmware": "1",
        "utc": "2026-01-01T00:00:00.000000000Z",
        "uptime_s": 7.0,
        "clock": {"source": "free", "sigma_s": 1.0},
        "lost_samples": 3,
        "outbox": {"depth": 2, "dropped": 1},
        "broker": {"connected": True, "acknowledged": 5},
        "detections": [],
    }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [time.monotonic()]
    monkeypatch.setattr("node.vitals.time.monotonic", lambda: now[0])
    return now


def test_the_watchdog_is_fed_by_audio_that_advances_and_by_nothing_else(
    tmp_path: Path, clock: list[float]
) -> None:
    with ServiceManager(tmp_path) as manager, vitals(tmp_path, manager) as shown:
        for _ in range(5):
            shown.show(facts)
            clock[0] += SHOW_S
        before = list(manager.words())
        assert "READY=1" not in before
        assert "WATCHDOG=1" not in before
        assert before.count(f"EXTEND_TIMEOUT_USEC={PATIENCE_S * 1e6:.0f}") == 5

        shown.heard(sound(0))
        shown.show(facts)
        assert {"READY=1", "WATCHDOG=1"} <= set(manager.words())
        for _ in range(5):  # the same sound again, and again: a card that repeats itself
            clock[0] += SHOW_S
            shown.heard(sound(0))
            shown.show(facts)
        assert "WATCHDOG=1" not in list(manager.words())
        clock[0] += SHOW_S
        shown.heard(sound(1))
        shown.show(facts)
        assert "WATCHDOG=1" in list(manager.words())


def test_the_counter_of_another_stream_advances_too(tmp_path: Path, clock: list[float]) -> None:
    with ServiceManager(tmp_path) as manager, vitals(tmp_path, manager) as shown:
        shown.heard(sound(50))
        shown.show(facts)
        clock[0] += SHOW_S
        list(manager.words())
        shown.heard(Block(0, sound(0).frames, RATE, stream=1))
        shown.show(facts)
        assert "WATCHDOG=1" in list(manager.words())


def test_the_file_says_all_that_is_known_and_goes_with_the_node(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    with vitals(tmp_path) as shown:
        shown.book.warn("broker", "away")
        for second in range(12):
            shown.heard(sound(second))
        shown.show(facts)
        said = json.loads(file.read_text())
        assert said["pid"] == os.getpid()
        assert said["condition"] == "degraded"
        assert said["light"]["code"] == "no_broker"
        assert {"microphone 0", "microphone 1", "microphones", "broker"} <= {
            check["name"] for check in said["checks"]
        }
        assert [m["verdict"] for m in said["microphones"]] == ["ok", "ok"]
        status = LocalStatus.read(file)
        assert status.well
        assert status.headline == "HEARS, but something is wrong"
        assert file.stat().st_mode & 0o777 == 0o644
    assert not file.exists()


def test_what_others_have_put_where_the_file_is_written_is_replaced(tmp_path: Path) -> None:
    beside, key = tmp_path / "status.json.new", tmp_path / "node.key"
    key.write_text("secret")
    for put in ("a link", "a FIFO"):
        if put == "a link":
            beside.symlink_to(key)
        else:
            os.mkfifo(beside)
        with vitals(tmp_path) as shown:
            shown.show(facts)
            assert LocalStatus.read(tmp_path / "status.json").fresh
    assert key.read_text() == "secret"


def test_a_node_that_never_came_to_show_anything_leaves_the_file_of_another(tmp_path: Path) -> None:
    with vitals(tmp_path) as shown:
        shown.show(facts)
        with vitals(tmp_path):
            pass  # its outbox is held, say
        assert LocalStatus.read(tmp_path / "status.json").fresh


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with vitals(tmp_path / "not there") as shown:
        shown.heard(sound(0))
        shown.show(facts)


def test_dead_microphones_are_told_and_all_of_them_are_a_failure(tmp_path: Path) -> None:
    with vitals(tmp_path) as shown:
        for second in range(10):
            frames = np.zeros((RATE, 2), np.int32)
            shown.heard(Block(second * RATE, frames, RATE))
        shown.show(facts)
        assert shown.book.says("microphones") == "0 of 2 work"
        assert LocalStatus.read(tmp_path / "status.json").headline == "FAILED"


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("watchdog killed 9", "hung, and was ended by the watchdog"),
        ("exit-code exited 2", "ended with an error (2)"),
        ("oom-kill killed KILL", "used up its memory"),
        ("success exited 0", ""),
        ("nonsense", ""),
    ],
)
def test_how_the_last_run_ended_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, told: str
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    (tmp_path / "last-end").write_text(last + "\n")
    with vitals(tmp_path) as shown:
        assert told in shown.book.says("last run")
        assert bool(told) == bool(shown.book.says("last run"))
    with vitals(tmp_path) as again:
        assert not again.book.says("last run")


@pytest.mark.parametrize(
    ("left", "verdict", "told", "code"),
    [
        (
            '{"verdict": "warn", "figure": "waits for the clock", "advice": "wait"}',
            "warn",
            "waits for the clock",
            Code.NO_BROKER,
        ),
        (
            '{"verdict": "fail", "figure": "refused: revoked", "advice": "enrol anew"}',
            "fail",
            "refused: revoked",
            Code.KEY,
        ),
        ('{"verdict": "pass", "figure": "by riverside", "advice": ""}', "pass", "", Code.WELL),
        ('{"verdict": "warn", "fig', "warn", "cannot be read", Code.NO_BROKER),
        ('{"verdict": "warn", "figure": 3, "advice": ""}', "warn", "cannot be read", None),
        ('{"verdict": "odd", "figure": "x", "advice": ""}', "warn", "cannot be read", None),
        ("[" * 4000, "warn", "cannot be read", None),
    ],
)
def test_what_enrolment_has_left_is_told(
    tmp_path: Path, left: str, verdict: str, told: str, code: Code | None
) -> None:
    (tmp_path / "enrolment.json").write_text(left)
    (finding,) = setup_findings(tmp_path)
    assert (finding.check, finding.verdict) == ("enrolment", verdict)
    assert told in finding.figure
    assert code is None or finding.code is code


def test_the_services_beside_the_node_are_heard_while_it_runs(
    tmp_path: Path, clock: list[float]
) -> None:
    write(Places(tmp_path), "update", "warn", "0.2.0 was taken back: it did not hear", "look at it")
    health = {
        "status_file": tmp_path / "status.json",
        "setup_folder": Places(tmp_path).reports,
    }
    with vitals(tmp_path, health=health) as shown:
        shown.show(dict)
        assert shown.book.says("update") == "0.2.0 was taken back: it did not hear"
        write(Places(tmp_path), "update", "pass", "0.2.1 since 2026-11-29")
        clock[0] += 2
        shown.show(dict)
        assert not shown.book.says("update")


def test_a_broker_is_missed_only_after_a_while(tmp_path: Path, clock: list[float]) -> None:
    with vitals(tmp_path) as shown:
        shown.connected(False, ("nobody listens there",))
        assert not shown.book.says("broker")
        assert [f.figure for f in shown.book if f.check == "broker"] == ["not reached yet"]
        clock[0] += 20
        shown.connected(False, ("nobody listens there",))
        assert shown.book.says("broker") == "nobody listens there"
        shown.connected(True, ())
        assert not shown.book.says("broker")


def test_certificates_that_end_soon_do_not_look_like_a_broker_that_is_away(tmp_path: Path) -> None:
    ends = Validity("mqtt.cert_file /etc/x.crt", 0, 10 * DAY_NS)
    for days in (3, 11):
        with vitals(tmp_path) as shown:
            shown.connected(True, (ends.trouble(days * DAY_NS),))
            assert not shown.book.says("broker")
            assert "expire" in shown.book.says("certificate")
            assert light_code(shown.book) is Code.STORE
            shown.connected(True, ("the broker takes nothing",))
            assert shown.book.says("broker") == "the broker takes nothing"
            assert not shown.book.says("certificate")


def test_of_certificates_what_is_wrong_is_parted_from_what_to_do(tmp_path: Path) -> None:
    ours, ca = (Validity(f"mqtt.{n}_file /{n}.crt", 0, 10 * DAY_NS) for n in ("cert", "ca"))
    unusable = (
        "new certificates are not taken up, the old are used on: mqtt.key_file /k: others than its "
        "owner may use it (mode 644): run `chmod 600 /k`"
    )
    no_file = (
        "new certificates are not taken up, the old are used on: mqtt.ca_file /p: is not a regular "
        "file; set it to a file"
    )
    renew = "put a new one in its place, it is taken up without a restart"
    with vitals(tmp_path) as shown:
        shown.connected(True, tuple(v.trouble(3 * DAY_NS) for v in (ours, ca)))
        (told,) = shown.book.wrong()
        assert told.figure == (
            "mqtt.cert_file /cert.crt expires on 1970-01-11, in 7 days; "
            "mqtt.ca_file /ca.crt expires on 1970-01-11, in 7 days"
        )
        assert told.next_step == renew
        shown.connected(True, (unusable, ours.trouble(11 * DAY_NS)))
        (told,) = shown.book.wrong()
        assert "mode 644); mqtt.cert_file /cert.crt expired on 1970-01-11" in told.figure
        assert told.next_step == f"run `chmod 600 /k`; check this machine's clock, or {renew}"
        shown.connected(True, (no_file,))
        (told,) = shown.book.wrong()
        assert told.figure.endswith("mqtt.ca_file /p: is not a regular file")
        assert told.next_step == "set it to a file"
        shown.connected(True, ())
        assert not shown.book.wrong()


def test_a_full_disk_does_not_look_like_a_broker_that_is_away(tmp_path: Path) -> None:
    full = "outbox /o.sqlite3: no space left on its disk: free some, or move it by outbox.path"
    with vitals(tmp_path) as shown:
        shown.connected(True, (full,))
        assert [(f.name, f.figure) for f in shown.book.wrong()] == [("outbox sending", full)]
        assert light_code(shown.book) is Code.STORE
        shown.book.warn("outbox", f"1 detections wait in memory: {full}")
        shown.connected(True, (full,))
        assert [f.name for f in shown.book.wrong()] == ["outbox"]  # one fault, one line
        shown.book.settle("outbox", "0 wait")
        shown.connected(True, ())
        assert not shown.book.wrong()


@pytest.mark.parametrize(("free_mib", "code"), [(400, Code.WELL), (300, Code.STORE)])
def test_a_disk_that_fills_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, code: Code
) -> None:
    usage = SimpleNamespace(free=free_mib * 2**20)
    monkeypatch.setattr("node.examine.shutil.disk_usage", lambda _folder: usage)
    with vitals(tmp_path, outbox={"path": tmp_path / "o.sqlite3"}) as shown:
        shown.heard(sound(0))
        shown.show(facts)
        assert light_code(f for f in shown.book if f.check == "disk") is code
        assert bool(shown.book.says("disk")) == (code is Code.STORE)


def test_room_that_comes_and_goes_is_told_once(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=0)
    monkeypatch.setattr("node.examine.shutil.disk_usage", lambda _folder: usage)
    outbox = {"path": tmp_path / "o.sqlite3", "max_bytes": 100 * 2**20}
    told = []
    with vitals(tmp_path, outbox=outbox) as shown:
        for free_mib in (357, 355, 357, 355, 419, 421, 357):
            usage.free = free_mib * 2**20
            shown.show(facts)
            told.append(bool(shown.book.says("disk")))
            clock[0] += SHOW_S
    assert told == [False, True, True, True, True, False, False]


def test_of_a_disk_that_does_not_answer_the_last_word_does_not_stand(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with vitals(tmp_path, outbox={"path": tmp_path / "o.sqlite3"}) as shown:
        shown.show(facts)
        assert [f.check for f in shown.book if f.check == "disk"] == ["disk"]
        monkeypatch.setattr("node.examine.shutil.disk_usage", gone)
        clock[0] += SHOW_S
        shown.show(facts)
        assert [f.check for f in shown.book if f.check == "disk"] == []


def test_metrics_are_read_by_http_where_they_are_asked_for(tmp_path: Path) -> None:
    place = f"127.0.0.1:{free_port()}"
    with vitals(
        tmp_path, health={"metrics": place, "status_file": tmp_path / "status.json"}
    ) as shown:
        shown.heard(sound(0))
        shown.show(facts)
        with urllib.request.urlopen(f"http://{place}/metrics", timeout=5) as answer:
            said = answer.read().decode()
        assert "gunfire_hears 1.0" in said
        assert "gunfire_lost_samples_total 3.0" in said
        assert 'gunfire_check{name="microphones"}' in said
        with vitals(
            tmp_path, health={"metrics": place, "status_file": tmp_path / "other.json"}
        ) as second:
            assert "choose another port" in second.book.says("metrics")


def test_a_place_for_metrics_that_is_none_is_told_and_stops_nothing(tmp_path: Path) -> None:
    health = {"metrics": f"{'a' * 64}.test:9110", "status_file": tmp_path / "status.json"}
    with vitals(tmp_path, health=health) as shown:
        assert "no metrics at health.metrics" in shown.book.says("metrics")


def test_a_reader_of_metrics_that_never_asks_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.board.metrics.READER_S", 0.1)
    port = free_port()
    health = {"metrics": f"127.0.0.1:{port}", "status_file": tmp_path / "status.json"}
    with (
        vitals(tmp_path, health=health),
        socket.create_connection(("127.0.0.1", port), timeout=5) as reader,
    ):
        assert reader.recv(1) == b""


def test_metrics_that_the_unit_forbids_say_what_allows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("prometheus_client.start_http_server", forbidden)
    health = {"metrics": "127.0.0.1:9110", "status_file": tmp_path / "status.json"}
    with vitals(tmp_path, health=health) as shown:
        assert "SocketBindAllow=tcp:9110" in shown.book.says("metrics")


@pytest.fixture
def mock_pins() -> Any:
    Device.pin_factory = MockFactory()
    yield Device.pin_factory
    Device.pin_factory.reset()
    Device.pin_factory = None


def test_what_ends_a_run_under_a_service_manager_is_shown_first(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch, mock_pins: Any
) -> None:
    shown: list[Code] = []
    monkeypatch.setattr("node.vitals.Board.show", lambda self, code: shown.append(code))
    monkeypatch.setattr("node.vitals.time.sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    board = settings(tmp_path, board={"enabled": True}).board
    began = clock[0]
    with ServiceManager(tmp_path) as manager:
        error = IdentityError("the key is spoilt")
        blink_until(lambda: False, error, board, Service(manager.environment))
        assert set(shown) == {Code.KEY}
        assert clock[0] - began == pytest.approx(BLINK_S, abs=1)
        assert "STATUS=the key is spoilt" in list(manager.words())
        shown.clear()
        blink_until(lambda: True, error, board, Service(manager.environment))
        blink_until(lambda: False, error, board, Service({}))
        assert shown == []
