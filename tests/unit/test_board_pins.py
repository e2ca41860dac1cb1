"""Pins that cannot be opened: which, why and what to do; and a hardened unit is no reason."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory

from node.board import pins
from node.board.pins import Contact, open_led
from node.errors import BoardError

# What gpiozero uses of lgpio as it is imported and opened. Like the real one, it makes a FIFO in
# LG_WD, goes there, and opens that by its bare name.
FAKE_LGPIO = """
    import os
    BOTH_EDGES, RISING_EDGE, FALLING_EDGE = 3, 1, 2
    SET_PULL_NONE, SET_PULL_UP, SET_PULL_DOWN = 128, 32, 64
    class error(Exception):
        pass
    os.chdir(os.environ.get("LG_WD", os.getcwd()))
    os.mkfifo(".lgd-nfy0")
    fifo = os.open(".lgd-nfy0", os.O_RDWR)
    def gpiochip_open(chip):
        if os.environ.get("CHIP") != str(chip):
            raise error("can not open gpiochip")
        return 7
    def gpiochip_close(handle):
        pass
    def gpio_claim_input(handle, pin, flags=0):
        raise error("GPIO busy")
"""
TRY_IT = """
    import os, sys, tempfile
    from pathlib import Path
    from node.board import pins
    from node.errors import BoardError
    # A test as root may write anywhere; a unit may not.
    before = os.getcwd()
    pins.REVISION = Path(os.environ.get("REVISION", "nowhere"))
    try:
        pins.open_led(17, True)
    except BoardError as error:
        print(error)
    assert os.getcwd() == before, os.getcwd()
    assert "LG_WD" not in os.environ
"""


def attempt(tmp_path: Path, lgpio: str | None, **environment: str) -> str:
    """Open an LED in a Python of its own, with that lgpio; give what it says."""
    here = tmp_path / "here"
    here.mkdir()
    if lgpio is not None:
        (tmp_path / "lgpio.py").write_text(textwrap.dedent(lgpio))
    clean = {k: v for k, v in os.environ.items() if k not in ("GPIOZERO_PIN_FACTORY", "LG_WD")}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRY_IT)],
        env={**clean, "PYTHONPATH": f"{tmp_path}:{root}", **environment},
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(here.iterdir()) == []  # nothing of lgpio's is left
    return done.stdout


@pytest.fixture
def mock_pins() -> Iterator[MockFactory]:
    Device.pin_factory = MockFactory()
    yield Device.pin_factory
    Device.pin_factory.reset()
    Device.pin_factory = None


@pytest.fixture
def revision(tmp_path: Path) -> str:
    """Lay out the revision of a Pi 4 as the device tree has it."""
    file = tmp_path / "revision"
    file.write_bytes(bytes.fromhex("00c03114"))
    return str(file)


def test_without_lgpio_it_says_how_to_install_it(tmp_path: Path) -> None:
    if subprocess.run([sys.executable, "-c", "import lgpio"], cwd=tmp_path).returncode == 0:
        pytest.skip("lgpio is installed here")
    said = attempt(tmp_path, None)
    assert "no lgpio" in said
    assert "run provisioning/install again" in said


def test_the_empty_package_that_pip_takes_for_python_3_13_is_known(tmp_path: Path) -> None:
    said = attempt(tmp_path, "")
    assert "0.0.0.2" in said
    assert "pip uninstall lgpio" in said


def test_without_a_folder_to_write_to_it_says_so(tmp_path: Path) -> None:
    said = attempt(tmp_path, 'raise FileNotFoundError(2, "No such file", ".lgd-nfy-3")')
    assert "TMPDIR" in said


def test_a_machine_that_is_no_pi_is_told_as_one(tmp_path: Path) -> None:
    if Path("/proc/device-tree/system/linux,revision").exists():
        pytest.skip("this is a Pi")
    said = attempt(tmp_path, FAKE_LGPIO)
    assert "no Raspberry Pi" in said
    assert "board.enabled = false" in said


def test_the_pis_revision_is_read_where_a_hardened_unit_can_read_it(
    tmp_path: Path, revision: str
) -> None:
    # The chip of a Pi 4 is 0: that it got so far shows that /proc was not needed.
    assert "GPIO busy" in attempt(tmp_path, FAKE_LGPIO, REVISION=revision, CHIP="0")


def test_a_pin_in_use_is_named_with_its_setting(tmp_path: Path, revision: str) -> None:
    said = attempt(tmp_path, FAKE_LGPIO, REVISION=revision, CHIP="0")
    assert said.startswith("GPIO 17 (board.led_pin) cannot be used: ")
    assert "gpioinfo" in said


def test_a_chip_that_does_not_open_is_told(tmp_path: Path, revision: str) -> None:
    assert "can not open gpiochip" in attempt(tmp_path, FAKE_LGPIO, REVISION=revision, CHIP="none")


def test_why_a_chip_does_not_open_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "PrivateDevices=no" in pins._chip_trouble(tmp_path)
    (tmp_path / "gpiochip0").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "group gpio" in pins._chip_trouble(tmp_path)
    monkeypatch.undo()
    assert "DeviceAllow=char-gpiochip" in pins._chip_trouble(tmp_path)


def test_an_unknown_pin_factory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "nonsense")
    with pytest.raises(BoardError, match="GPIOZERO_PIN_FACTORY=nonsense"):
        open_led(17, True)


def test_the_environment_may_name_the_mock_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    open_led(17, True).close()
    assert isinstance(Device.pin_factory, MockFactory)
    Device.pin_factory = None


@pytest.mark.usefixtures("mock_pins")
def test_a_pin_that_another_part_holds_is_refused() -> None:
    led = open_led(17, True)
    with pytest.raises(BoardError, match=r"GPIO 17 \(board.button_pin\)"):
        Contact(17, "button_pin")
    led.close()


@pytest.mark.usefixtures("mock_pins")
def test_a_lost_edge_is_made_good_at_the_next_look() -> None:
    now_s = 0.0
    contact = Contact(27, "button_pin", lambda: now_s)
    pin = Device.pin_factory.pin(27)
    pin._state = False  # without an edge
    assert contact.changes(1.0) == []  # seen, not settled
    assert [change.closed for change in contact.changes(2.0)] == [True]
    contact.close()
