"""From figures to findings: the thresholds and words that the daemon and `check` share.

Under both, beside the stages that measured.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from node.board import BoardReading, Code
from node.board.findings import Finding
from node.detect.microphones import SAME, MicrophoneState
from node.settings import BoardSettings
from node.timing import ReceiverState

# The firmware slows a Pi's processor down from 80 °C on, and harder at 85.
SOC_HOT_C: Final = 80.0
# How that reason begins (node/timing/receiver.py). Only the 12.5 minutes of an almanac, or somebody
# else's clock, could mend it.
YOUNG: Final = "whether it knows the leap seconds is not told"
SILENT: Final = "silent for more than"
# Three quarters of what the unit allows (systemd/gunfire-node.service).
MUCH_BYTES: Final = 240 * 2**20
# What else is to find room beside a full outbox.
ROOM_BYTES: Final = 256 * 2**20
# What services beside the node may say something of, and how much.
SETUP_CHECKS: Final = ("enrolment", "update")
MOST_SAID_BYTES: Final = 4096
# Others spoil what they hear; a node with none but these hears nothing.
DEAF: Final = frozenset(("silent", "stuck", "clipped"))


def microphone_findings(states: Sequence[MicrophoneState]) -> Iterator[Finding]:
    """Judge each microphone, and whether there is any left to hear with."""
    for state in states:
        which = str(state.channel)
        if state.works or _in_other_order(state):
            yield Finding("microphone", "pass", _levels(state), which=which)
        else:
            # What is wrong, and what to see to.
            figure, *advice = re.split(r"[;:] (?=see |turn )", state.sentence, maxsplit=1)
            yield Finding("microphone", "warn", figure, "".join(advice), which)
    working = sum(state.works or _in_other_order(state) for state in states)
    hear = any(state.verdict not in DEAF for state in states)
    yield Finding("microphones", "pass" if hear else "fail", f"{working} of {len(states)} work")


def _in_other_order(state: MicrophoneState) -> bool:
    """Whether a microphone works, and it is the order of the channels that is wrong."""
    copied = state.correlation is not None and state.correlation >= SAME
    return state.verdict == "swapped" and not copied


def _levels(state: MicrophoneState) -> str:
    if state.rms_dbfs is None or state.peak_dbfs is None:
        return state.sentence
    return f"{state.rms_dbfs:.0f} dBFS rms, peak {state.peak_dbfs:.0f} dBFS"


def resident_bytes() -> int:
    """Give what this process has in memory (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_finding(resident: int) -> Finding:
    """Judge what the node has in memory, in bytes: a leak is told before its bound ends the run."""
    figure = f"{resident / 1e6:.0f} MB"
    if resident < MUCH_BYTES:
        return Finding("memory", "pass", figure)
    return Finding("memory", "warn", f"{figure}, where some 110 are usual")


def room_finding(outbox: Path, most_bytes: int, more_bytes: int = 0) -> Finding:
    """Judge what room there is where the outbox is, which may grow to so many bytes.

    Parameters
    ----------
    outbox
        Its file; a link is followed, as the outbox does.
    most_bytes
        Its bound, its log's part included.
    more_bytes
        What is to be free besides: somewhat where it was scarce a moment ago, or it is told to be
        scarce and not by turns.

    Raises
    ------
    OSError
        The folder is not there, or its disk does not answer.
    """
    file = Path(os.path.realpath(outbox))
    free = shutil.disk_usage(file.parent).free
    to_come = max(0, most_bytes - _size(file) - _size(file.with_name(file.name + "-wal")))
    return Finding(
        "disk",
        "pass" if free > to_come + ROOM_BYTES + more_bytes else "warn",
        f"{file.parent}: {free / 2**30:.1f} GiB free",
        "free some space: the outbox may not find room",
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def setup_findings(folder: Path | None) -> Iterator[Finding]:
    """Read what enrolment and update have left in their folder, a file for each check.

    What is not whole, or not theirs, is told: nobody else writes there.
    """
    for check in SETUP_CHECKS if folder is not None else ():
        file = Path(str(folder)) / f"{check}.json"
        try:
            said = json.loads(file.read_bytes()[:MOST_SAID_BYTES])
            verdict, figure, advice = (said[key] for key in ("verdict", "figure", "advice"))
            if not (verdict in ("pass", "warn", "fail") and figure + advice):
                raise ValueError(verdict)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            advice = f"see `journalctl -u gunfire-node-{check}*`"
            yield Finding(check, "warn", f"{file}: cannot be read", advice)
            continue
        yield Finding(check, verdict, figure, advice)


def is_young(state: ReceiverState) -> bool:
    """Say whether a receiver lacks nothing but the leap seconds, told once in 12.5 minutes."""
    return state.reason.startswith(YOUNG)


def receiver_finding(state: ReceiverState) -> Finding:
    """Judge a receiver by its fix, its satellites and whether its UTC is believed."""
    fix = ("fix not known", "no fix", "fix without height", "fix")[state.fix]
    used, seen = state.satellites_used, state.satellites_seen
    parts = [fix, f"{'?' if used is None else used} of {'?' if seen is None else seen} satellites"]
    if state.position is not None:
        parts.append(f"± {state.position.sigma_m:.0f} m")
    young = state.fix >= 2 and is_young(state)
    if state.utc_valid:
        parts.append("UTC valid")
    else:
        parts.append("UTC after 12.5 minutes" if young else f"UTC not used: {state.reason}")
    well = state.utc_valid or young
    advice = "give the antenna open sky, and a cold receiver 15 minutes"
    if state.reason.startswith(SILENT):
        advice = (
            "check gpsd's service and the receiver's cable; see `gpsmon` of the package "
            "gpsd-clients"
        )
    return Finding("receiver", "pass" if well else "warn", ", ".join(parts), advice)


def receiver_pulse_finding(seen: bool) -> Finding:
    """Judge whether the receiver's pulse reaches the machine beside the card."""
    if seen:
        return Finding("receiver pulse", "pass", "seen by gpsd or the kernel")
    return Finding("receiver pulse", "warn", "neither gpsd nor the kernel sees it")


def board_findings(reading: BoardReading, settings: BoardSettings) -> Iterator[Finding]:
    """Judge supply, temperature, lid, button and pins, as far as they are fitted."""
    power = reading.power
    if power.under_voltage is not None:
        if power.under_voltage:
            yield Finding("power", "warn", "the supply fell below 4.63 V")
        elif power.throttled:
            # Where the voltage holds.
            advice = "mostly it is heat: give the enclosure shade and air; then see the supply"
            yield Finding("power", "warn", "the processor is slowed down", advice)
        else:
            yield Finding("power", "pass", "holds")
    yield from _temperature(reading, settings)
    if reading.tamper is not None:
        yield _enclosure(reading)
    button = reading.button
    if button is not None:
        left_s = button.maintenance_left_s
        yield Finding(
            "maintenance",
            "pass" if left_s is None else "warn",
            "nobody works at the node"
            if left_s is None
            else "somebody works at the node: what is heard may be that",
        )
    trouble = [*reading.trouble]
    stuck = button is not None and button.stuck
    if stuck:
        trouble.append("the button is stuck")
    if trouble:
        advice = "" if reading.trouble else "free the button, and look for water in it"
        yield Finding("board", "warn", "; ".join(trouble), advice)
    elif settings.enabled:
        yield Finding("board", "pass", "light and button answer")


def _temperature(reading: BoardReading, settings: BoardSettings) -> Iterator[Finding]:
    said = []
    wrong = []
    advice = ""
    if settings.thermometer:
        inside_c = reading.enclosure_c
        if inside_c is None:
            wrong.append("the thermometer of the enclosure does not answer")
            advice = "check the DS18B20's wires, its pull-up, and dtoverlay=w1-gpio in config.txt"
        else:
            said.append(f"enclosure {inside_c:.0f} °C")
            if inside_c >= settings.hot_c:
                wrong.append(f"the enclosure is too hot: {inside_c:.0f} °C")
            if inside_c < settings.cold_c:
                wrong.append(f"the enclosure is too cold: {inside_c:.0f} °C")
    if reading.soc_c is not None:
        said.append(f"processor {reading.soc_c:.0f} °C")
        if reading.soc_c >= SOC_HOT_C:
            wrong.append(f"the processor is too hot: {reading.soc_c:.0f} °C")
    if wrong:
        # Heat goes before a wire.
        yield Finding("temperature", "warn", "; ".join(wrong), advice if len(wrong) == 1 else "")
    elif said:
        yield Finding("temperature", "pass", ", ".join(said))


def _enclosure(reading: BoardReading) -> Finding:
    tamper = reading.tamper
    assert tamper is not None  # noqa: S101 - the caller has asked
    if tamper.open:
        return Finding("enclosure", "warn", "it is open, or the wire of its switch is cut")
    if tamper.latched:
        times = "once" if tamper.count == 1 else f"{tamper.count} times"
        # For who looks once a day; whoever has shut it is to see by the light that it is shut.
        figure = f"it was opened {times}, within the last day"
        return Finding("enclosure", "warn", figure, "see who was at the node", lit=False)
    return Finding("enclosure", "pass", "shut")


def finding_record(finding: Finding) -> dict[str, Any]:
    """Give a finding as programs read it."""
    return {
        "name": finding.name,
        "verdict": finding.verdict,
        "figure": finding.figure,
        "advice": finding.next_step,
        "light": light_record(finding.code),
    }


def light_record(code: Code) -> dict[str, Any]:
    """Give a code of the light as programs read it."""
    return {
        "code": code.name.lower(),
        "long": code.long,
        "short": code.short,
        "meaning": code.meaning,
    }
