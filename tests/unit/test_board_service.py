"""What a node says to its service manager, and to nobody where there is none."""

from pathlib import Path

import pytest

from node.board.service import MOST_STATUS, Service
from tests.hil.service_manager import ServiceManager


def test_a_node_started_by_hand_says_nothing_and_fails_at_nothing() -> None:
    service = Service({})
    assert not service.supervised
    service.ready()
    service.alive()
    service.status("hears")


def test_ready_is_said_once_and_alive_each_time(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager:
        service = Service(manager.environment)
        assert service.supervised
        service.wait(30)
        service.ready()
        service.ready()
        service.alive()
        service.alive()
        service.wait(30)
        service.stopping()
        assert list(manager.words()) == [
            "EXTEND_TIMEOUT_USEC=30000000",
            "READY=1",
            "WATCHDOG=1",
            "WATCHDOG=1",
            "STOPPING=1",
        ]


def test_the_watchdog_waits_longer_for_as_long_as_it_is_asked_to(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager:
        service = Service(manager.environment | {"WATCHDOG_USEC": "15000000"})
        with service.patient(60.0):  # none is on before it hears
            pass
        service.ready()
        assert list(manager.words()) == ["READY=1"]
        with service.patient(60.0):
            assert list(manager.words()) == ["WATCHDOG_USEC=60000000"]
        assert list(manager.words()) == ["WATCHDOG_USEC=15000000"]
        with pytest.raises(OSError, match="stalled"), service.patient(60.0):
            raise OSError("stalled")
        assert list(manager.words()) == ["WATCHDOG_USEC=60000000", "WATCHDOG_USEC=15000000"]
        with service.patient(10.0):  # it waits for longer as it is
            pass
        for none in ({}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}):
            service = Service(manager.environment | none)
            service.ready()
            with service.patient(60.0):
                pass
        assert list(manager.words()) == ["READY=1"] * 3


def test_that_the_watchdog_waits_no_longer_is_said_until_it_is_taken(tmp_path: Path) -> None:
    folder, environment = tmp_path, {"WATCHDOG_USEC": "15000000"}
    with ServiceManager(folder) as manager:
        service = Service(manager.environment | environment)
        service.ready()
        with service.patient(60.0):
            (folder / "notify").rename(folder / "away")
        (folder / "away").rename(folder / "notify")
        service.alive()
        service.alive()
        assert list(manager.words()) == [
            "READY=1",
            "WATCHDOG_USEC=60000000",
            "WATCHDOG_USEC=15000000",
            "WATCHDOG=1",
            "WATCHDOG=1",
        ]


def test_ready_is_said_again_until_it_is_taken(tmp_path: Path) -> None:
    manager = ServiceManager(tmp_path)
    service = Service(manager.environment)
    service.ready()
    with manager:
        service.ready()
        service.ready()
        assert list(manager.words()) == ["READY=1"]


def test_a_status_is_one_line_of_some_length_and_said_when_it_changes(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager:
        service = Service(manager.environment)
        service.status("hears;\nbut " + "x" * 1000)
        service.status("hears;\nbut " + "x" * 1000)
        (said,) = manager.words()
        assert said.startswith("STATUS=hears; but xxx")
        assert len(said) == len("STATUS=") + MOST_STATUS


def test_a_file_s_name_that_is_no_text_is_said_all_the_same(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager:
        Service(manager.environment).status("\udcff.toml: cannot be read")
        assert list(manager.words()) == ["STATUS=?.toml: cannot be read"]


def test_a_service_manager_that_has_gone_stops_nothing(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager:
        service = Service(manager.environment)
    service.ready()
    service.alive()


def test_an_abstract_socket_is_reached(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(f"\0gunfire-{tmp_path.name}")
        abstract.settimeout(5)
        Service({"NOTIFY_SOCKET": f"@gunfire-{tmp_path.name}"}).alive()
        assert abstract.recv(100) == b"WATCHDOG=1"
