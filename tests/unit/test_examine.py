"""From figures to findings: what daemon and `check` both say of microphones and board."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node.board import BoardReading, ButtonReading, Code, PowerReading, TamperReading
from node.board.findings import Finding, condition
from node.detect.microphones import SAME, MicrophoneState
from node.examine import (
    MUCH_BYTES,
    ROOM_BYTES,
    SOC_HOT_C,
    board_findings,
    finding_record,
    light_record,
    memory_finding,
    microphone_findings,
    receiver_finding,
    receiver_pulse_finding,
    resident_bytes,
    room_finding,
)
from node.settings import BoardSettings
from node.timing import LeapTable
from node.timing.receiver import Receiver

WORKS = MicrophoneState(0, 2, "ok", "it hears", rms_dbfs=-52.4, peak_dbfs=-31.2)
BARE = BoardReading(None, None, None, None, None, PowerReading(None, None), ())


def broken(verdict: str, **figures: Any) -> MicrophoneState:
    return replace(WORKS, verdict=verdict, sentence=f"{verdict}: see its cable", **figures)


def on_board(**fitted: Any) -> dict[str, Finding]:
    settings = BoardSettings(thermometer=fitted.pop("thermometer", False))
    return {f.check: f for f in board_findings(replace(BARE, **fitted), settings)}


def test_a_microphone_that_works_is_told_by_its_channel_and_levels() -> None:
    of_one, of_all = microphone_findings([WORKS])
    assert (of_one.name, of_one.verdict) == ("microphone 2", "pass")
    assert of_one.figure == "-52 dBFS rms, peak -31 dBFS"
    assert (of_all.verdict, of_all.figure) == ("pass", "1 of 1 work")


def test_one_that_does_not_is_parted_into_what_is_wrong_and_what_to_see_to() -> None:
    of_one, *_ = microphone_findings([broken("silent")])
    assert (of_one.verdict, of_one.figure) == ("warn", "silent")
    assert of_one.advice == "see its cable"


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        (("silent", "ok"), "pass"),
        (("silent", "stuck", "clipped"), "fail"),
        (("silent", "noisy"), "pass"),
        (("humming",), "pass"),
    ],
)
def test_a_node_fails_only_where_no_microphone_hears_anything(
    verdicts: tuple[str, ...], told: str
) -> None:
    states = [WORKS if verdict == "ok" else broken(verdict) for verdict in verdicts]
    *_, of_all = microphone_findings(states)
    assert (of_all.check, of_all.verdict) == ("microphones", told)


def test_a_microphone_in_another_ones_place_works_but_a_copy_does_not() -> None:
    exchanged, *_ = microphone_findings([broken("swapped", correlation=0.3)])
    copied, *_ = microphone_findings([broken("swapped", correlation=SAME)])
    assert (exchanged.verdict, copied.verdict) == ("pass", "warn")


def test_a_node_that_grows_is_told_in_megabytes_before_its_bound_ends_it() -> None:
    usual, much = memory_finding(125_400_000), memory_finding(MUCH_BYTES)
    assert (usual.verdict, usual.figure) == ("pass", "125 MB")
    assert much.verdict == "warn"
    assert 0 < resident_bytes() < 2**40


def test_room_is_what_the_outbox_lacks_of_its_bound_where_its_file_really_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=ROOM_BYTES + 2**20)

    monkeypatch.setattr("node.examine.shutil.disk_usage", usage)
    card = tmp_path / "card"
    card.mkdir()
    outbox = tmp_path / "outbox.sqlite3"
    outbox.symlink_to(card / "o.sqlite3")
    assert room_finding(outbox, 3 * 2**20).verdict == "warn"
    for name in ("o.sqlite3", "o.sqlite3-wal"):
        with (card / name).open("wb") as file:
            file.truncate(2**20)
    assert room_finding(outbox, 3 * 2**20).verdict == "warn"
    assert room_finding(outbox, 3 * 2**20 - 1).verdict == "pass"
    assert room_finding(outbox, 2**20).verdict == "pass"
    assert room_finding(outbox, 2**20, 2**20).verdict == "warn"
    assert set(asked) == {card}


def test_of_what_is_not_fitted_nothing_is_said() -> None:
    assert on_board() == {}


@pytest.mark.parametrize(
    ("power", "verdict", "figure"),
    [
        (PowerReading(False, False), "pass", "holds"),
        (PowerReading(False, True), "warn", "the processor is slowed down"),
        (PowerReading(True, True), "warn", "the supply fell below 4.63 V"),
    ],
)
def test_a_weak_supply_goes_before_what_it_slows_down(
    power: PowerReading, verdict: str, figure: str
) -> None:
    told = on_board(power=power)["power"]
    assert (told.verdict, told.figure) == (verdict, figure)
    assert ("stronger supply" in told.next_step) == bool(power.under_voltage)


@pytest.mark.parametrize(
    ("enclosure_c", "soc_c", "verdict", "figure"),
    [
        (21.0, 50.0, "pass", "enclosure 21 °C, processor 50 °C"),
        (70.0, 50.0, "warn", "the enclosure is too hot: 70 °C"),
        (-26.0, None, "warn", "the enclosure is too cold: -26 °C"),
        (21.0, SOC_HOT_C, "warn", "the processor is too hot: 80 °C"),
        (None, 50.0, "warn", "the thermometer of the enclosure does not answer"),
    ],
)
def test_heat_cold_and_a_mute_thermometer_are_told_in_degrees(
    enclosure_c: float | None, soc_c: float | None, verdict: str, figure: str
) -> None:
    told = on_board(enclosure_c=enclosure_c, soc_c=soc_c, thermometer=True)["temperature"]
    assert (told.verdict, told.figure) == (verdict, figure)


def test_where_it_is_too_hot_besides_the_advice_is_not_the_thermometers() -> None:
    mute = on_board(thermometer=True)["temperature"]
    hot_too = on_board(soc_c=SOC_HOT_C, thermometer=True)["temperature"]
    assert "DS18B20" in mute.next_step
    assert "DS18B20" not in hot_too.next_step


@pytest.mark.parametrize(
    ("tamper", "verdict", "figure"),
    [
        (TamperReading(False, 0, latched=False), "pass", "shut"),
        (TamperReading(True, 1, latched=True), "warn", "it is open"),
        (TamperReading(False, 1, latched=True), "warn", "it was opened once"),
        (TamperReading(False, 3, latched=True), "warn", "it was opened 3 times"),
        (TamperReading(False, 3, latched=False), "pass", "shut"),
    ],
)
def test_a_lid_is_told_while_it_is_open_and_for_a_day(
    tamper: TamperReading, verdict: str, figure: str
) -> None:
    told = on_board(tamper=tamper)["enclosure"]
    assert told.verdict == verdict
    assert told.figure.startswith(figure)
    assert told.code is (Code.BOARD if tamper.open else Code.WELL)  # who has shut it sees that


def test_of_a_receiver_that_is_silent_the_sky_is_not_to_blame() -> None:
    receiver = Receiver(LeapTable.load())
    receiver.take({"class": "TPV", "mode": 1, "time": "2026-07-04T22:13:05.000Z"}, 10**9)
    fresh, silent = (receiver_finding(receiver.state(s * 10**9)) for s in (2, 30))
    assert "open sky" in fresh.next_step
    assert "gpsd's service" in silent.next_step
    assert "`gpsmon` of the package gpsd-clients" in silent.next_step


def test_a_pulse_that_nobody_sees_is_told() -> None:
    assert receiver_pulse_finding(True).verdict == "pass"
    assert receiver_pulse_finding(False).figure == "neither gpsd nor the kernel sees it"


def test_maintenance_and_a_stuck_button_are_told_apart() -> None:
    calm = on_board(button=ButtonReading(False, False, None))
    assert calm["maintenance"].verdict == "pass"
    assert "board" not in calm  # no pin is in use
    held = on_board(button=ButtonReading(True, True, 60.0), trouble=("GPIO 17: busy",))
    assert held["maintenance"].verdict == "warn"
    assert held["board"].figure == "GPIO 17: busy; the button is stuck"
    wet = on_board(button=ButtonReading(True, True, None))
    assert "free the button" in wet["board"].next_step


def test_nothing_of_the_board_keeps_a_node_from_hearing() -> None:
    worst = on_board(
        button=ButtonReading(True, True, 60.0),
        tamper=TamperReading(True, 9, latched=True),
        soc_c=120.0,
        power=PowerReading(True, True),
        trouble=("GPIO 17: busy",),
        thermometer=True,
    )
    assert condition(worst.values()) == "degraded"


def test_programs_read_a_finding_with_its_light_and_advice_only_where_it_is_wrong() -> None:
    well = finding_record(Finding("microphone", "pass", "-52 dBFS", "check its plug", "2"))
    wrong = finding_record(Finding("broker", "fail", "refused"))
    assert (well["name"], well["advice"]) == ("microphone 2", "")
    assert well["light"] == light_record(Code.WELL)
    assert wrong["light"] == {
        "code": "no_broker",
        "long": Code.NO_BROKER.long,
        "short": Code.NO_BROKER.short,
        "meaning": Code.NO_BROKER.meaning,
    }
    assert wrong["advice"]
