"""Faults planted in a good node, one at a time: what `gunfire-node check` says of each.

The expectations stand here as they were written before the first run. Each fault has its line, its
verdict, a word of its next step, and what the light says; no other line may fail or warn but those
that the fault itself makes wrong, which are named too.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from node.classify.classifier import shipped_model
from tests.evidence import Claim, Detail
from tests.hil.network_proxy import NetworkProxy
from tests.hil.virtual_card import build_plugin
from tests.hil.virtual_chrony import VirtualChrony
from tests.hil.virtual_receiver import Gpsd, VirtualReceiver, free_port
from tests.parts import Part, Tell
from tests.units.good_node import (
    MICROPHONES,
    PULSE,
    RATE,
    Bench,
    Checked,
    Surroundings,
    TimeServer,
    chronyc,
    surroundings,
)

AT_ONCE: Final = 2
LONGEST_BAR_S: Final = 60.0
FULL_SCALE: Final = 2**31
LIGHT: Final = {
    "pulse": (1, 1), "broker": (1, 2), "clock": (1, 3), "receiver": (1, 4), "microphone": (1, 5),
    "board": (1, 6), "store": (1, 7), "card": (2, 1), "deaf": (2, 2), "settings": (2, 3),
    "model": (2, 4), "key": (2, 5), "disk": (2, 6),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault, and what is to be said of it.

    Attributes
    ----------
    name
        What is wrong.
    plant
        Makes it so.
    line, verdict, advice, light
        The line that tells it, how, a part of its next step, and the light's flashes by `LIGHT`.
    figure
        A part of its figure.
    also
        Lines that the fault itself makes wrong.
    """

    name: str
    plant: Callable[[Bench], object]
    line: str
    verdict: str
    advice: str
    light: str
    figure: str = ""
    also: tuple[str, ...] = ()

    def complaints(self, done: Checked) -> Iterator[str]:
        """Say what of a check's answer is not as it should be."""
        if self.line == "settings":
            if done.code != 2 or self.figure not in done.stderr:
                yield f"ended with {done.code}: {done.stderr[-300:]}"
            return
        yield from self.complaints_of_line(done)
        for what, wanted, said in (
            ("exit code", int(self.verdict == "fail"), done.code),
            ("light", LIGHT[self.light], done.light),
        ):
            if said != wanted:
                yield f"{what} {said}, not {wanted}"
        for name in done.wrong.keys() - {self.line, *self.also}:
            yield f"{name} is wrong too: {done.wrong[name]['figure']}"

    def complaints_of_line(self, done: Checked) -> Iterator[str]:
        """Say what of its own line is not as it should be."""
        line = done.lines.get(self.line)
        if line is None:
            yield f"no line {self.line!r}; ended with {done.code}: {done.stderr[-300:]}"
            return
        if line["verdict"] != self.verdict:
            yield f"verdict {line['verdict']}, not {self.verdict}"
        light = (line["light"]["long"], line["light"]["short"])
        if light != LIGHT[self.light]:
            yield f"its light {light}, not {LIGHT[self.light]}"
        for what, part in (("advice", self.advice), ("figure", self.figure)):
            if part not in line[what]:
                yield f"{what} {line[what]!r} without {part!r}"


def put(section: str, **values: object) -> Callable[[Bench], None]:
    """Give what sets settings."""

    def plant(bench: Bench) -> None:
        bench.settings.setdefault(section, {}).update(values)

    return plant


def sound(channel: int, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Bench], None]:
    """Give what changes a channel's sound; full scale is 1."""

    def plant(bench: Bench) -> None:
        of = bench.sound[:, channel] / FULL_SCALE
        whole = np.clip(np.round(make(of) * 2**23), -(2**23), 2**23 - 1)  # as a converter has it
        bench.sound[:, channel] = whole.astype(np.int64) << 8

    return plant


def _dead(of: np.ndarray) -> np.ndarray:
    """Give what a cable that is off does: the converter's own last bits."""
    return np.asarray(np.random.default_rng(1).integers(-1, 2, len(of)) / 2**23)


def _hum(of: np.ndarray) -> np.ndarray:
    """Add the mains and its odd harmonics, 30 dB over the street."""
    t = np.arange(len(of)) / RATE
    level = 30 * float(np.std(of))
    return np.asarray(of + sum(level / k * np.sin(2 * np.pi * 50 * k * t) for k in (1, 3, 5, 7)))


def _too_loud(of: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(of * (4 / np.std(of)), -1, 1))


def _all_dead(bench: Bench) -> None:
    for channel in range(MICROPHONES):
        sound(channel, _dead)(bench)


def _copied(bench: Bench) -> None:
    bench.sound[:, 2] = bench.sound[:, 1]


def _rotated(bench: Bench) -> None:
    bench.sound = np.roll(bench.sound, 1, axis=1)


def _no_pulse(of: np.ndarray) -> np.ndarray:
    return np.asarray(np.random.default_rng(2).normal(0, 1e-4, len(of)))


def _two_cards(bench: Bench) -> None:
    bench.second_card = "microphones2"
    bench.settings["capture"]["device"] = "microphone"


def _stall(bench: Bench) -> None:
    bench.deed = lambda card: card.stall()


def _unplug(bench: Bench) -> None:
    bench.deed = lambda card: card.unplug()


def _lose(bench: Bench) -> None:
    bench.deed = lambda card: card.skip(700)


def _sky(*, fix: bool = True, silent: bool = False) -> Callable[[Bench], None]:
    def plant(bench: Bench) -> None:
        sky = VirtualReceiver()
        sky.fix, sky.silent = fix, silent
        bench.hooks.enter_context(sky)
        gpsd = bench.hooks.enter_context(Gpsd(sky.device))
        put("timing", gpsd=gpsd.address)(bench)

    return plant


def _chrony_off(bench: Bench) -> None:
    command = ("chronyc", "-h", str(bench.folder / "nobody.sock"))
    path = chronyc(bench.folder / "bin", command)
    bench.environment["PATH"] = f"{path}:{bench.environment['PATH']}"


def _chrony_adrift(bench: Bench) -> None:
    chrony = VirtualChrony(bench.folder / "chrony", 0.0)
    chrony.pulse = False
    bench.hooks.enter_context(chrony)
    path = chronyc(bench.folder / "bin", chrony.command)
    bench.environment["PATH"] = f"{path}:{bench.environment['PATH']}"


def _opinion(off_s: float) -> Callable[[Bench], None]:
    def plant(bench: Bench) -> None:
        server = bench.hooks.enter_context(TimeServer(off_s))
        put("timing", ntp_servers=[server.address])(bench)

    return plant


def _broker_away(bench: Bench) -> None:
    put("mqtt", url=f"mqtts://127.0.0.1:{free_port()}")(bench)


def _broker_swallows(bench: Bench) -> None:
    proxy = bench.hooks.enter_context(NetworkProxy(bench.around.broker_port))
    proxy.stall()
    put("mqtt", url=f"mqtts://127.0.0.1:{proxy.port}")(bench)


def _no_names(bench: Bench) -> None:
    """Have a name server that listens and never answers."""
    deaf = bench.hooks.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    address = f"127.7.{next(_ADDRESSES)}.53"
    deaf.bind((address, 53))
    resolv = bench.folder / "resolv.conf"
    resolv.write_text(f"nameserver {address}\n")
    bench.mounts.append(f"mount --bind {resolv} /etc/resolv.conf")
    put("mqtt", url="mqtts://broker.example.org")(bench)


def _all_hangs(bench: Bench) -> None:
    """Have all hang that can: every name, the receiver, the time server, and then the card."""
    _no_names(bench)
    _sky(silent=True)(bench)
    put("timing", ntp_servers=["time.example.org", "time2.example.org"])(bench)
    _stall(bench)


_ADDRESSES: Final = count(1)


def _other_rights(bench: Bench) -> None:
    files = bench.around.people.auditor
    put("mqtt", cert_file=str(files.certificate), key_file=str(files.key))(bench)


def _no_certificate(bench: Bench) -> None:
    del bench.settings["mqtt"]["cert_file"], bench.settings["mqtt"]["key_file"]


def _other_ca(bench: Bench) -> None:
    other = bench.around.people.sign(bench.folder / "other", "other").certificate
    put("mqtt", ca_file=str(other.with_name("ca.crt")))(bench)


def _client_expired(bench: Bench) -> None:
    files = bench.around.people.expired()
    put("mqtt", cert_file=str(files.certificate), key_file=str(files.key))(bench)


def _disk(options: str, *then: str) -> Callable[[Bench], None]:
    def plant(bench: Bench) -> None:
        place = bench.folder / "disk"
        place.mkdir()
        bench.mounts.append(f"mount -t tmpfs -o {options} none {place}")
        bench.mounts += [line.format(place=place) for line in then]
        put("outbox", path=str(place / "outbox.sqlite3"))(bench)

    return plant


def _spoilt_model(bench: Bench) -> None:
    shipped = shipped_model()
    shutil.copy(shipped.with_suffix(".json"), bench.folder)
    model = Path(shutil.copy(shipped, bench.folder))
    model.write_bytes(model.read_bytes()[:9000])
    put("classify", model=str(model))(bench)


def _key(bench: Bench) -> Path:
    return Path(bench.settings["integrity"]["key_file"])


def _other_certificate(bench: Bench) -> None:
    files = bench.around.people.sign(bench.folder / "other", "mast-2")
    put("integrity", key_file=str(files.key), certificate_file=str(files.certificate))(bench)


def _sysfs(**files: str) -> Callable[[Bench], None]:
    """Lay files over /sys/class, as a Pi's kernel has them."""

    def plant(bench: Bench) -> None:
        root = bench.folder / "class"
        for path, text in files.items():
            file = root / path.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
        bench.mounts.append(f"mount --bind {root} /sys/class")

    return plant


FAULTS: Final = (
    Fault("card absent", put("capture", device="no such"), "sound card", "fail",
          "set capture.device to one of: 'microphones'", "card", "'no such' is not there"),
    Fault("name fits two cards", _two_cards, "sound card", "fail",
          "more of the name of one", "card", "fits 2 devices"),
    Fault("too few channels", put("capture", channels=6, silent_channels=[5]), "sound card",
          "fail", "set capture.channels to 5", "card", "has 5 input channels"),
    Fault("rate refused", put("capture", sample_rate_hz=44100), "sound card", "fail",
          "capture.sample_rate_hz", "card", "refuses 5 channels, 44100 Hz"),
    Fault("card stalls meanwhile", _stall, "sound card", "fail", "plug it in again", "card",
          "delivered nothing for 2 s"),
    Fault("card vanishes meanwhile", _unplug, "sound card", "fail", "plug it in again", "card",
          "delivered nothing for 2 s"),
    Fault("samples lost", _lose, "samples", "warn", "cable and power", "board", "lost",
          also=("pulse", "channel order")),
    Fault("microphone silent", sound(1, _dead), "microphone 1", "warn", "plug", "microphone"),
    Fault("microphone stuck", sound(2, lambda of: np.full(len(of), 0.3)), "microphone 2", "warn",
          "plug", "microphone", "0.3"),
    Fault("microphone clipped", sound(0, _too_loud), "microphone 0", "warn", "gain",
          "microphone", "full scale"),
    Fault("microphone humming", sound(3, _hum), "microphone 3", "warn", "shield", "microphone",
          "50.0 Hz"),
    Fault("microphone copied in the mixer", _copied, "microphone 1", "warn", "mixer",
          "microphone", "2", also=("microphone 2", "channel order")),
    Fault("all microphones dead", _all_dead, "microphones", "fail", "supply of the microphones",
          "deaf", "0 of 4 work", also=tuple(f"microphone {i}" for i in range(4))),
    Fault("channels rotated", _rotated, "channel order", "fail", "opened anew", "microphone",
          "rotated", also=("microphone 0",)),
    Fault("no pulse in its channel", sound(PULSE, _no_pulse), "pulse", "fail",
          "pulse output", "pulse", "0 taken", also=("channel order",)),
    Fault("pulse at full scale", sound(PULSE, lambda of: of * 4), "pulse", "warn", "attenuate",
          "pulse", "peak 0 dBFS"),
    Fault("gpsd not running", lambda b: put("timing", gpsd=f"localhost:{free_port()}")(b),
          "receiver", "fail", "gpsd's service", "receiver", "refused", also=("position",)),
    Fault("receiver silent", _sky(silent=True), "receiver", "fail", "the receiver's cable",
          "receiver", "says nothing"),
    Fault("receiver without a fix", _sky(fix=False), "receiver", "warn", "open sky", "receiver",
          "no fix"),
    Fault("chronyd not running", _chrony_off, "clock", "warn", "systemctl start chrony", "clock",
          "free"),
    Fault("chronyd not synchronised", _chrony_adrift, "clock", "warn", "chronyc sources", "clock",
          "not synchronised"),
    Fault("second opinion off by 5 s", _opinion(5.0), "second opinion", "fail",
          "chronyc sources", "clock", "s off", also=("clock",)),
    Fault("second opinion silent", put("timing", ntp_servers=["127.0.0.1:9"]), "second opinion",
          "warn", "network", "clock"),
    Fault("surveyed 5 km away", put("node.position", lat_deg=47.90), "position", "fail",
          "mend node.position", "receiver", "m from where node.position says"),
    Fault("broker not there", _broker_away, "broker", "fail", "check mqtt.url", "broker",
          "nothing listens there"),
    Fault("broker swallows every packet", _broker_swallows, "broker", "fail", "network", "broker",
          "answer"),
    Fault("name server silent", _no_names, "broker", "fail", "network", "broker"),
    Fault("broker asks for a certificate", _no_certificate, "broker", "fail", "mqtt.cert_file",
          "broker"),
    Fault("broker takes nothing of this name", _other_rights, "broker", "fail", "access list",
          "broker", "refused 1 of 1 messages"),
    Fault("broker of another CA", _other_ca, "broker", "fail", "mqtt.ca_file", "broker",
          "certificate is not accepted"),
    Fault("client certificate expired", _client_expired, "broker", "fail",
          "put a new one in its place", "broker", "expired on"),
    Fault("disk full", _disk("size=64k", "dd if=/dev/zero of={place}/filler 2>/dev/null || true"),
          "disk", "fail", "free some space", "disk", "No space left"),
    Fault("disk nearly full", _disk("size=100m"), "disk", "warn", "free some space", "store",
          "0.1 GiB free"),
    Fault("disk read-only", _disk("ro"), "disk", "fail", "change the card", "disk", "Read-only"),
    Fault("model spoilt", _spoilt_model, "model", "fail", "install the shipped model", "model"),
    Fault("signing key readable by others", lambda b: _key(b).chmod(0o644), "signing key", "fail",
          "chmod 600", "key", "others may read it"),
    Fault("signing key spoilt", lambda b: _key(b).write_text("no key"), "signing key", "fail",
          "bring the right file back", "key", "is not an unencrypted private key"),
    Fault("certificate of another node", _other_certificate, "signing key", "fail",
          "give this node's", "key", "names bench/mast-2"),
    Fault("under-voltage", _sysfs(hwmon__hwmon0__name="rpi_volt",
                                  hwmon__hwmon0__in0_lcrit_alarm="1"),
          "power", "warn", "stronger supply", "board", "4.63 V"),
    Fault("processor hot", _sysfs(thermal__thermal_zone0__temp="84200"), "temperature", "warn",
          "shade", "board", "84 °C"),
    Fault("thermometer does not answer", put("board", thermometer=True), "temperature", "warn",
          "DS18B20", "board", "does not answer"),
    Fault("lid open", put("board", tamper_pin=22), "enclosure", "warn", "close it", "board",
          "open"),
    Fault("pins not to be had",
          lambda b: b.environment.update(GPIOZERO_PIN_FACTORY="none such"), "board", "warn",
          "[board]", "board", "no pins"),
    Fault("all hangs that can", _all_hangs, "sound card", "fail", "plug it in again", "card",
          "delivered nothing for 2 s",
          also=("receiver", "broker", "second opinion", "second opinion time.example.org",
                "second opinion time2.example.org")),
    Fault("settings wrong", put("capture", chanels=4), "settings", "fail", "", "settings",
          "capture.chanels: no such setting"),
)  # fmt: skip


def planted(fault: Fault | None, folder: Path, around: Surroundings) -> Checked:
    """Check a node with a fault in it; with None, a good one."""
    folder.mkdir(parents=True)
    bench = Bench(folder, around)
    if fault is not None:
        fault.plant(bench)
    return bench.check()


def good(done: Checked) -> list[str]:
    """Say what is wrong with the answer for a good node."""
    wrong = [f"{name}: {line['figure']}" for name, line in done.wrong.items()]
    if done.code != 0 or done.report.get("verdict") != "ready" or done.light != (0, 0):
        wrong.append(f"ended with {done.code}, light {done.light}: {done.stderr[-300:]}")
    return wrong


def measure(tell: Tell) -> Part:
    """Plant each, two nodes at a time."""
    rows, longest_s, right, well = [], 0.0, 0, True
    with tempfile.TemporaryDirectory(prefix="gunfire-planted-") as scratch:
        folder, numbers = Path(scratch), count(1)
        plugin = build_plugin(folder)
        with (
            surroundings(folder, plugin) as around,
            ThreadPoolExecutor(AT_ONCE, "planted") as pool,
        ):

            def one(fault: Fault | None) -> tuple[Fault | None, Checked]:
                tell(fault.name if fault else "a good node")
                return fault, planted(fault, folder / f"node-{next(numbers)}", around)

            for fault, done in pool.map(one, (None, *FAULTS)):
                longest_s = max(longest_s, done.seconds)
                complaints = good(done) if fault is None else list(fault.complaints(done))
                if fault is None:
                    well = not complaints
                else:
                    right += not complaints
                rows.append(_row(fault, done, complaints))
    claims = (
        Claim(f"planted faults that check tells rightly, of {len(FAULTS)}", right, "faults",
              "all", right == len(FAULTS)),
        Claim("a good node passes check without a warning", float(well), "", "1", well),
        Claim("longest check, whatever is broken", longest_s, "s", f"≤ {LONGEST_BAR_S:g}",
              longest_s <= LONGEST_BAR_S),
    )  # fmt: skip
    columns = ("fault", "line", "verdict", "figure", "next step", "light", "s", "as it should be")
    return Part(claims, (Detail("Faults planted in a node", columns, tuple(rows)),))


def _row(fault: Fault | None, done: Checked, complaints: list[str]) -> tuple[str, ...]:
    name = "none" if fault is None else fault.name
    line = done.lines.get(fault.line) if fault is not None else None
    as_told = "; ".join(complaints) or "yes"
    seconds, flashes = f"{done.seconds:.0f}", "{} long, {} short".format(*done.light)
    if line is None:
        said = done.stderr.strip().splitlines()[-1:] or [str(done.report.get("verdict"))]
        return (name, "", f"exit code {done.code}", _plain(said[0]), "", "", seconds, as_told)
    return (name, line["name"], line["verdict"], _plain(line["figure"]), _plain(line["advice"]),
            flashes, seconds, as_told)  # fmt: skip


def _plain(text: str) -> str:
    """Leave out this machine's scratch folders, and what a table of Markdown cannot hold."""
    words = [Path(w).name if w.startswith(tempfile.gettempdir()) else w for w in text.split()]
    return " ".join(words).replace("|", "/")


if __name__ == "__main__":
    print(json.dumps([fault.name for fault in FAULTS], indent=1))
