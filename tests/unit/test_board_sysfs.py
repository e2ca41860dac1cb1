"""Temperatures and power: what the kernel says is taken, what it cannot mean is not."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.board.power import PowerReading, power
from node.board.temperature import Thermometer, enclosure_c, soc_c

PROBE = "28-0316a2794aff"
OTHER = "28-0416b1118bff"


def put(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def put_probe(root: Path, content: str | bytes, name: str = PROBE) -> None:
    put(root, f"bus/w1/devices/{name}/temperature", content)


@pytest.mark.parametrize(
    ("content", "celsius"),
    [
        ("21437\n", 21.437),
        ("-12062\n", -12.062),
        ("0", 0.0),
        ("85000\n", None),  # as after power-on
        ("84937\n", 84.937),
        ("-55001\n", None),
        ("125063\n", None),
        ("", None),  # some drivers' way to say that the check sum was wrong
        ("t=21437", None),
        (b"\xff\xfe", None),
        ("1" * 5000, None),
        ("२१४३७", None),
    ],
)
def test_the_enclosure_is_as_warm_as_a_believable_reading_says(
    tmp_path: Path, content: str | bytes, celsius: float | None
) -> None:
    put_probe(tmp_path, content)
    assert enclosure_c(None, tmp_path) == celsius


def test_of_several_thermometers_the_named_one_is_read(tmp_path: Path) -> None:
    put_probe(tmp_path, "20000")
    put_probe(tmp_path, "30000", OTHER)
    put(tmp_path, "bus/w1/devices/w1_bus_master1/temperature", "40000")
    assert enclosure_c(None, tmp_path) == 20
    assert enclosure_c(OTHER, tmp_path) == 30
    assert enclosure_c("28-000000000000", tmp_path) is None


def test_a_reading_that_fails_is_none(tmp_path: Path) -> None:
    (tmp_path / "bus/w1/devices" / PROBE / "temperature").mkdir(parents=True)  # EISDIR for EIO
    assert enclosure_c(None, tmp_path) is None
    assert enclosure_c(None, tmp_path / "nowhere") is None
    assert soc_c(tmp_path) is None


def test_a_slow_thermometer_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "bus/w1/devices" / PROBE / "temperature"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)  # reading it waits for a writer
    with Thermometer(True, None, tmp_path) as thermometer:
        assert thermometer.celsius is None
        path.write_text("23500")
        until_s = time.monotonic() + 5
        while thermometer.celsius is None and time.monotonic() < until_s:
            time.sleep(0.01)
        assert thermometer.celsius == 23.5


def test_what_is_not_fitted_is_not_looked_for(tmp_path: Path) -> None:
    put_probe(tmp_path, "20000")
    with Thermometer(False, None, tmp_path) as thermometer:
        time.sleep(0.05)
        assert thermometer.celsius is None


def test_the_chip_tells_its_own_temperature(tmp_path: Path) -> None:
    put(tmp_path, "class/thermal/thermal_zone0/temp", "54218\n")
    assert soc_c(tmp_path) == 54.218


def pi(root: Path, alarm: str | None = "0\n", throttled: str | None = "0\n") -> Path:
    """Lay out what a Pi 4's kernel shows."""
    put(root, "class/hwmon/hwmon0/name", "cpu_thermal\n")
    put(root, "class/hwmon/hwmon1/name", "rpi_volt\n")
    if alarm is not None:
        put(root, "class/hwmon/hwmon1/in0_lcrit_alarm", alarm)
    if throttled is not None:
        put(root, "devices/platform/soc/soc:firmware/get_throttled", throttled)
    return root


@pytest.mark.parametrize(
    ("alarm", "throttled", "warmth_c", "reading"),
    [
        ("0\n", "0\n", 50.0, PowerReading(False, False)),
        ("1\n", "50005\n", 50.0, PowerReading(True, True)),
        ("1\n", "50001\n", 50.0, PowerReading(True, False)),
        ("0\n", "0x80008\n", 84.0, PowerReading(False, False)),  # the soft limit alone
        ("0\n", "e0006\n", 84.0, PowerReading(False, True)),
        ("0\n", None, 84.0, PowerReading(False, None)),
        ("0\n", "0\n", None, PowerReading(False, False)),
        (None, "0\n", 50.0, PowerReading(None, None)),
        ("perhaps", "perhaps", 84.0, PowerReading(None, None)),
        ("", "", 84.0, PowerReading(None, None)),
    ],
)
def test_the_supply_is_as_the_kernel_says(
    tmp_path: Path,
    alarm: str | None,
    throttled: str | None,
    warmth_c: float | None,
    reading: PowerReading,
) -> None:
    assert power(pi(tmp_path, alarm, throttled), warmth_c) == reading


def test_throttling_is_found_where_a_pi_5_has_it(tmp_path: Path) -> None:
    pi(tmp_path, throttled=None)
    put(tmp_path, "devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", "4\n")
    assert power(tmp_path, 84.0).throttled


def test_the_deprecated_file_is_left_alone_while_all_is_well(tmp_path: Path) -> None:
    # Reading it puts a warning, with a trace, into the kernel's log.
    pi(tmp_path, throttled="6\n")
    assert power(tmp_path, 50.0) == PowerReading(False, False)


def test_where_there_is_no_pi_nothing_is_known(tmp_path: Path) -> None:
    put(tmp_path, "class/hwmon/hwmon0/name", "coretemp\n")
    assert power(tmp_path, None) == PowerReading(None, None)


@settings(max_examples=200)
@given(content=st.binary(max_size=40))
def test_no_content_of_any_file_raises(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.mktemp("sys")
    put_probe(root, content)
    put(root, "class/thermal/thermal_zone0/temp", content)
    put(root, "class/hwmon/hwmon0/name", "rpi_volt")
    put(root, "class/hwmon/hwmon0/in0_lcrit_alarm", content)
    put(root, "devices/platform/soc/soc:firmware/get_throttled", content)
    celsius, warmth_c = enclosure_c(None, root), soc_c(root)
    assert celsius is None or -55 <= celsius <= 125
    assert warmth_c is None or -60 <= warmth_c <= 200
    power(root, warmth_c)
