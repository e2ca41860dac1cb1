"""A second opinion from a real NTP server on loopback (chronyd, which leaves our clock alone)."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import ntplib
import pytest

from node.timing import HostClock
from node.timing.ntp import SecondOpinion, ask, weigh


@pytest.fixture
def ntp_server(tmp_path: Path) -> Iterator[str]:
    chronyd = shutil.which("chronyd") or shutil.which("chronyd", path="/usr/sbin")
    if not chronyd:
        pytest.skip("needs chronyd (apt: chrony)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = tmp_path / "chrony.conf"
    configuration.write_text(
        f"port {port}\nbindaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 5\ncmdport 0\n"
        f"bindcmdaddress /\npidfile {tmp_path}/chronyd.pid\n"
    )
    with (tmp_path / "chronyd.log").open("w+") as log:
        server = subprocess.Popen([chronyd, "-x", "-d", "-f", configuration], stderr=log)
        try:
            for _ in range(50):
                if server.poll() is not None:
                    log.seek(0)
                    pytest.skip(f"chronyd does not run here: {log.read().strip()[-200:]}")
                try:
                    ntplib.NTPClient().request("127.0.0.1", port=port, timeout=0.2)
                    break
                except ntplib.NTPException:
                    time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def test_a_server_on_the_same_clock_finds_it_right(ntp_server: str) -> None:
    opinion = ask(ntp_server)
    assert abs(opinion.offset_s) <= opinion.uncertainty_s + 1e-3
    assert opinion.uncertainty_s < 0.1


def test_the_thread_brings_an_opinion_that_tells_how_far_off_the_clock_is(ntp_server: str) -> None:
    second = SecondOpinion((ntp_server, "nobody:here"), 16)
    second.start()
    deadline = time.monotonic() + 20
    while (second.latest is None or not second.failures) and time.monotonic() < deadline:
        time.sleep(0.05)
    second.close()
    reading = HostClock().read()
    quality, reason = weigh(reading.quality, second.latest, reading.monotonic_ns)
    assert quality.second_confirmed or quality.source == "free"
    assert quality.sigma_s < 0.1
    assert reason is None
    assert "nobody:here" in second.failures
