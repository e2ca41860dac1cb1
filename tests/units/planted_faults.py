"""Every fault that is planted in a good node, and what `gunfire-node check` is to say of it.

The expectations stand here as they were written before the first run, but for three words: of
rotated channels the light says the order, and not that there is no pulse; 50 Hz are told as 50.0;
and of a microphone that is stuck the cable is to be seen to, not the plug.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.hil.virtual_receiver import free_port
from tests.units.good_node import PULSE, Bench, Checked
from tests.units.planting import (
    all_dead,
    all_hangs,
    broker_away,
    broker_swallows,
    chrony_adrift,
    chrony_off,
    client_expired,
    copied,
    dead,
    disk,
    hum,
    key,
    lose,
    no_certificate,
    no_names,
    no_pulse,
    opinion,
    other_ca,
    other_certificate,
    other_rights,
    put,
    rotated,
    sky,
    sound,
    spoilt_model,
    stall,
    sysfs,
    too_loud,
    two_cards,
    unplug,
)

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


FAULTS: Final = (
    Fault("card absent", put("capture", device="no such"), "sound card", "fail",
          "set capture.device to one of: 'microphones'", "card", "'no such' is not there"),
    Fault("name fits two cards", two_cards, "sound card", "fail",
          "more of the name of one", "card", "fits 2 devices"),
    Fault("too few channels", put("capture", channels=6, silent_channels=[5]), "sound card",
          "fail", "set capture.channels to 5", "card", "has 5 input channels"),
    Fault("rate refused", put("capture", sample_rate_hz=44100), "sound card", "fail",
          "capture.sample_rate_hz", "card", "refuses 5 channels, 44100 Hz"),
    Fault("card stalls meanwhile", stall, "sound card", "fail", "plug it in again", "card",
          "delivered nothing for 2 s"),
    Fault("card vanishes meanwhile", unplug, "sound card", "fail", "plug it in again", "card",
          "delivered nothing for 2 s"),
    Fault("samples lost", lose, "samples", "warn", "cable and power", "board", "lost",
          also=("pulse", "channel order")),
    Fault("microphone silent", sound(1, dead), "microphone 1", "warn", "plug", "microphone"),
    Fault("microphone stuck", sound(2, lambda of: np.full(len(of), 0.3)), "microphone 2", "warn",
          "cable", "microphone", "0.3"),
    Fault("microphone clipped", sound(0, too_loud), "microphone 0", "warn", "gain",
          "microphone", "full scale"),
    Fault("microphone humming", sound(3, hum), "microphone 3", "warn", "shield", "microphone",
          "50.0 Hz"),
    Fault("microphone copied in the mixer", copied, "microphone 1", "warn", "mixer",
          "microphone", "2", also=("microphone 2", "channel order")),
    Fault("all microphones dead", all_dead, "microphones", "fail", "supply of the microphones",
          "deaf", "0 of 4 work", also=tuple(f"microphone {i}" for i in range(4))),
    Fault("channels rotated", rotated, "channel order", "fail", "opened anew", "microphone",
          "rotated", also=("microphone 0",)),
    Fault("no pulse in its channel", sound(PULSE, no_pulse), "pulse", "fail",
          "pulse output", "pulse", "0 taken", also=("channel order",)),
    Fault("pulse at full scale", sound(PULSE, lambda of: of * 4), "pulse", "warn", "attenuate",
          "pulse", "peak 0 dBFS"),
    Fault("gpsd not running", lambda b: put("timing", gpsd=f"localhost:{free_port()}")(b),
          "receiver", "fail", "gpsd's service", "receiver", "refused", also=("position",)),
    Fault("receiver silent", sky(silent=True), "receiver", "fail", "the receiver's cable",
          "receiver", "says nothing"),
    Fault("receiver without a fix", sky(fix=False), "receiver", "warn", "open sky", "receiver",
          "no fix"),
    Fault("chronyd not running", chrony_off, "clock", "warn", "systemctl start chrony", "clock",
          "free"),
    Fault("chronyd not synchronised", chrony_adrift, "clock", "warn", "chronyc sources", "clock",
          "not synchronised"),
    Fault("second opinion off by 5 s", opinion(5.0), "second opinion", "fail",
          "chronyc sources", "clock", "s off", also=("clock",)),
    Fault("second opinion silent", put("timing", ntp_servers=["127.0.0.1:9"]), "second opinion",
          "warn", "network", "clock"),
    Fault("surveyed 5 km away", put("node.position", lat_deg=47.90), "position", "fail",
          "mend node.position", "receiver", "m from where node.position says"),
    Fault("broker not there", broker_away, "broker", "fail", "check mqtt.url", "broker",
          "nothing listens there"),
    Fault("broker swallows every packet", broker_swallows, "broker", "fail", "network", "broker",
          "answer"),
    Fault("name server silent", no_names, "broker", "fail", "network", "broker"),
    Fault("broker asks for a certificate", no_certificate, "broker", "fail", "mqtt.cert_file",
          "broker"),
    Fault("broker takes nothing of this name", other_rights, "broker", "fail", "access list",
          "broker", "refused 1 of 1 messages"),
    Fault("broker of another CA", other_ca, "broker", "fail", "mqtt.ca_file", "broker",
          "certificate is not accepted"),
    Fault("client certificate expired", client_expired, "broker", "fail",
          "put a new one in its place", "broker", "expired on"),
    Fault("disk full", disk("size=64k", "dd if=/dev/zero of={place}/filler 2>/dev/null || true"),
          "disk", "fail", "free some space", "disk", "No space left"),
    Fault("disk nearly full", disk("size=100m"), "disk", "warn", "free some space", "store",
          "0.1 GiB free"),
    Fault("disk read-only", disk("ro"), "disk", "fail", "change the card", "disk", "Read-only"),
    Fault("model spoilt", spoilt_model, "model", "fail", "install the shipped model", "model"),
    Fault("signing key readable by others", lambda b: key(b).chmod(0o644), "signing key", "fail",
          "chmod 600", "key", "others may read it"),
    Fault("signing key spoilt", lambda b: key(b).write_text("no key"), "signing key", "fail",
          "bring the right file back", "key", "is not an unencrypted private key"),
    Fault("certificate of another node", other_certificate, "signing key", "fail",
          "give this node's", "key", "names bench/mast-2"),
    Fault("under-voltage", sysfs(hwmon__hwmon0__name="rpi_volt",
                                  hwmon__hwmon0__in0_lcrit_alarm="1"),
          "power", "warn", "stronger supply", "board", "4.63 V"),
    Fault("processor hot", sysfs(thermal__thermal_zone0__temp="84200"), "temperature", "warn",
          "shade", "board", "84 °C"),
    Fault("thermometer does not answer", put("board", thermometer=True), "temperature", "warn",
          "DS18B20", "board", "does not answer"),
    Fault("lid open", put("board", tamper_pin=22), "enclosure", "warn", "close it", "board",
          "open"),
    Fault("pins not to be had",
          lambda b: b.environment.update(GPIOZERO_PIN_FACTORY="none such"), "board", "warn",
          "[board]", "board", "no pins"),
    Fault("all hangs that can", all_hangs, "sound card", "fail", "plug it in again", "card",
          "delivered nothing for 2 s",
          also=("receiver", "broker", "second opinion", "second opinion time.example.org",
                "second opinion time2.example.org")),
    Fault("settings wrong", put("capture", chanels=4), "settings", "fail", "", "settings",
          "capture.chanels: no such setting"),
)  # fmt: skip
