"""The self-test: each part by itself, what hangs, and how it all reads."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from click.testing import CliRunner
from rich.console import Console

from node.board import Code
from node.board.findings import CHECKS, Finding
from node.capture.portaudio import PortAudioSource
from node.check import Report, checks
from node.check.bounded import Part, split, together
from node.check.clock import receiver
from node.check.ear import order_finding
from node.check.holder import holder_of, outbox_user
from node.check.keep import board, disk, signing_key, snippets
from node.check.running import RunningNode, hung
from node.check.sending import broker
from node.cli import cli
from node.cli.check import screen
from node.detect.order import OrderState
from node.errors import BrokerError, DeviceError, IdentityError
from node.examine import finding_record
from node.identity import load_identity
from node.network import PrivateBroker
from node.settings import Settings
from node.timing import Fix, ReceiverState
from tests.hil.fleet_ca import FleetCa


def quietly(_what: str, _left_s: float) -> None:
    pass


class DeafSource(PortAudioSource):
    """A card that opens and delivers nothing: the source as it is, without PortAudio."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def bare(folder: Path, **more: object) -> Settings:
    return Settings.model_validate(
        {
            "outbox": {"path": folder / "o.sqlite3"},
            "mqtt": {"url": "mqtt://127.0.0.1:1"},
            "integrity": {"key_file": folder / "node.key"},
            "capture": {"channels": 1, "array": "mono", "silence_s": 60, "device": "deaf"},
            "health": {"status_file": folder / "status.json"},
            "timing": {"chrony": False},
            **more,
        }
    )


def test_a_card_that_delivers_nothing_fails_beside_all_that_is_told_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.check.ear.LISTEN_S", 0.5)
    monkeypatch.setattr("node.check.ear.SLACK_S", 0.5)
    settings = bare(tmp_path)
    report = checks(settings, DeafSource(settings.capture), quietly)
    card = report.findings[0]
    assert (card.name, card.verdict) == ("sound card", "fail")
    assert card.figure == "deaf: opens, but delivers nothing"
    assert "cable and power" in card.next_step
    names = [finding.name for finding in report.findings]
    assert names == ["sound card", "clock", "model", "disk", "signing key", "broker", "snippets"]
    assert names == sorted(names, key=list(CHECKS).index)
    assert not report.ready
    assert (report.light.long, report.light.short) == (2, 1)


def state(**changes: object) -> ReceiverState:
    told = ReceiverState(3, 9, 12, True, "", True, Fix(47.8, 106.2, 1310.0, 4.0))
    return replace(told, **changes)  # type: ignore[arg-type]


def test_a_receiver_that_is_well_passes_with_its_figures() -> None:
    (told,) = receiver(state(), None)
    assert told.verdict == "pass"
    assert told.figure == "fix, 9 of 12 satellites, ± 4 m, UTC valid"


def test_a_receiver_that_is_not_says_why_and_what_to_do() -> None:
    (cold,) = receiver(state(fix=1, utc_valid=False, reason="it has no fix", position=None), None)
    assert cold.verdict == "warn"
    assert cold.figure == "no fix, 9 of 12 satellites, UTC not used: it has no fix"
    assert "open sky" in cold.next_step
    (absent,) = receiver(state(), "gpsd at localhost:2947: refused")
    assert (absent.verdict, absent.figure) == ("fail", "gpsd at localhost:2947: refused")
    (silent,) = receiver(state(), "gpsd at localhost:2947 is being asked")
    assert silent.figure == "gpsd at localhost:2947 says nothing of a receiver in 9 s"
    (dead,) = receiver(state(), "gpsd at localhost:2947: Connection refused")
    assert "`gpsmon` of the package gpsd-clients" in dead.next_step


def test_a_receiver_that_only_needs_time_to_know_the_leap_seconds_is_well() -> None:
    reason = "whether it knows the leap seconds is not told; it does after 12.5 minutes"
    (young,) = receiver(state(utc_valid=False, reason=reason), None)
    assert young.verdict == "pass"
    assert "UTC after 12.5 minutes" in young.figure


def test_it_tells_whether_sound_leaves_the_node_and_to_whom() -> None:
    key = "age1a43kl5w2ld8yd9vqsk8xp54g394399f03q8zvk624jxk8vnhzpeqkedu96"
    (off,) = snippets(Settings())
    (on,) = snippets(
        Settings.model_validate({"snippets": {"enabled": True, "recipient": key, "after_s": 0.5}})
    )
    assert off.figure == "off: no sound leaves this node"
    assert on.figure.startswith("on: 0.75 s round each of gunfire, probable_gunfire")
    assert on.figure.endswith(key)


def test_the_key_that_signs_is_told_by_its_short_name_and_is_not_made_by_looking(
    tmp_path: Path,
) -> None:
    key_file = tmp_path / "node.key"
    settings = Settings.model_validate({"integrity": {"key_file": key_file}})
    (absent,) = signing_key(settings)
    assert (absent.verdict, key_file.exists()) == ("warn", False)
    load_identity(key_file, None, "node-1", "site")
    (made,) = signing_key(settings)
    assert re.match("key_id [0-9a-f]{16}, without a certificate", made.figure)
    key_file.chmod(0o644)
    with pytest.raises(IdentityError, match="integrity"):
        list(signing_key(settings))


def test_of_two_brokers_the_dead_one_is_a_warning_and_two_dead_ones_are_failures() -> None:
    dead = "mqtt://127.0.0.1:1"
    with PrivateBroker() as alive:
        one = list(broker(Settings.model_validate({"mqtt": {"urls": [dead, alive.url]}})))
    both = list(broker(Settings.model_validate({"mqtt": {"urls": [dead, alive.url]}})))
    assert [found.verdict for found in one] == ["warn", "pass"]
    assert [found.verdict for found in both] == ["fail", "fail"]
    assert "nothing listens there" in both[0].figure
    assert "check mqtt.url" in both[0].next_step


def test_a_broker_that_takes_nothing_of_this_node_is_told(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\n")
    acl.chmod(0o600)
    with PrivateBroker(extra=f"acl_file {acl}") as picky:
        (found,) = broker(Settings.model_validate({"mqtt": {"url": picky.url}}))
    assert found.verdict == "fail"
    assert "refused 1 of 1 messages" in found.figure
    assert "access list" in found.next_step


def test_a_folder_that_cannot_be_written_and_a_full_one_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(number: int) -> Finding:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("node.check.keep.tempfile.TemporaryFile", refuse)
        (found,) = disk(bare(tmp_path))
        return found

    full, read_only, denied = fails(28), fails(30), fails(13)
    assert {f.verdict for f in (full, read_only, denied)} == {"fail"}
    assert full.next_step == "free some space"
    assert "change the card" in read_only.next_step
    assert "writable for this user" in denied.next_step


def test_an_outbox_that_is_a_link_is_judged_where_it_leads(tmp_path: Path) -> None:
    settings = bare(tmp_path)
    card = tmp_path / "card"
    card.mkdir()
    settings.outbox.path.symlink_to(card / "not there yet/outbox.sqlite3")
    (found,) = disk(settings)
    assert found.figure.startswith(f"{card}: ")


def test_a_board_without_pins_tells_its_trouble_and_nothing_of_maintenance() -> None:
    found = list(board(Settings.model_validate({"board": {"enabled": True}})))
    assert "maintenance" not in [f.check for f in found]
    assert [f.check for f in found][-1] == "board"


@pytest.mark.parametrize(
    ("error", "figure", "advice"),
    [
        (BrokerError("broker mqtt://a:1: nothing listens there: check it"),
         "broker mqtt://a:1: nothing listens there", "check it"),
        (DeviceError("device 'a' is not there; set it to one of: 'b'"),
         "device 'a' is not there", "set it to one of: 'b'"),
        (IdentityError("key a: has mode 0644: chmod: now"), "key a: has mode 0644", "chmod: now"),
        (IdentityError("key a: cannot be read (why)"), "key a: cannot be read (why)", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_parted_from_what_to_do(
    error: BrokerError, figure: str, advice: str
) -> None:
    assert split(error) == (figure, advice)


def test_what_hangs_is_told_and_left_behind() -> None:
    def hang() -> Iterator[Finding]:
        time.sleep(30)
        yield Finding("disk", "pass", "never")

    told: list[str] = []
    begun_s = time.monotonic()
    quick = Part("model", "quick", 5.0, lambda: [Finding("model", "pass", "there")])
    runs = together([Part("disk", "slow", 0.4, hang), quick], lambda what, _: told.append(what))
    found = [finding for run in runs for finding in run.findings()]
    assert time.monotonic() - begun_s < 3
    assert [(f.check, f.verdict) for f in found] == [("disk", "fail"), ("model", "pass")]
    assert found[0].figure == "no answer within 0.4 s"
    assert (runs[0].hangs, runs[1].hangs) == (True, False)
    assert "slow" in told


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    def fault() -> Iterator[Finding]:
        raise ZeroDivisionError

    (run,) = together([Part("disk", "fault", 5.0, fault)], quietly)
    with pytest.raises(ZeroDivisionError):
        list(run.findings())


# What `check` reads of a node that runs.


def record(name: str, verdict: str = "pass", figure: str = "well") -> dict[str, str]:
    return {"name": name, "verdict": verdict, "figure": figure, "advice": ""}


def of_a_node(folder: Path) -> tuple[Settings, Path]:
    """Give its settings, and the file that it writes."""
    settings = bare(folder, node={"id": "n1"})
    assert settings.health.status_file is not None
    return settings, settings.health.status_file


def running_file(file: Path, **changes: Any) -> None:
    facts = {
        "written_monotonic_s": time.monotonic(),
        "pid": os.getpid(),
        "hears": True,
        "site": "unset",
        "node_id": "n1",
        "uptime_s": 10_860.0,
        "utc": "2026-07-04T22:13:05.000000000Z",
        "device": "UMC404HD",
        "lost_samples": 0,
        "broker": {"connected": True},
        "checks": [
            record("microphone 2", "warn", "silent"),
            record("clock"),
            record("pulse"),
            record("metrics", "warn", "no metrics"),
        ],
        "detections": [],
        **changes,
    }
    file.write_text(json.dumps(facts))


def test_a_running_node_is_asked_for_card_board_and_broker_and_nothing_else(
    tmp_path: Path,
) -> None:
    settings, file = of_a_node(tmp_path)
    assert RunningNode.of(settings) is None
    running_file(file)
    running = RunningNode.of(settings)
    assert running is not None
    assert running.sentence == f"asked the running node, pid {os.getpid()}, up 3 h 1 min"
    found = {f.name: f for f in running.findings(settings)}
    assert set(found) == {"microphone 2", "pulse", "sound card", "broker", "metrics"}
    assert found["microphone 2"].which == "2"
    assert found["sound card"].figure == "UMC404HD: heard, 0 samples lost"
    report = checks(settings, DeafSource(settings.capture), quietly)
    assert report.running is not None
    assert {"clock", "model", "disk", "signing key"} < {f.name for f in report.findings}
    assert [f.verdict for f in report.findings if f.name == "broker"] == ["pass"]


def test_a_node_of_before_or_of_other_settings_is_not_taken_for_this_one(tmp_path: Path) -> None:
    settings, file = of_a_node(tmp_path)
    running_file(file, written_monotonic_s=time.monotonic() - 80)
    assert RunningNode.of(settings) is None
    running_file(file, pid=2**22 + 1)
    assert RunningNode.of(settings) is None
    running_file(file, node_id="other")
    running = RunningNode.of(settings)
    assert running is not None
    (told,) = [f for f in running.findings(settings) if f.check == "settings"]
    assert told.verdict == "warn"
    assert "unset/other" in told.figure


def test_beside_a_node_that_runs_the_light_is_the_one_that_is_seen_there(tmp_path: Path) -> None:
    """Of a key that no CA has certified its light says nothing: whoever sets it up is told."""
    settings, file = of_a_node(tmp_path)
    key = load_identity(settings.integrity.key_file, None, "n1", "unset")
    assert key.certificate is None
    told = list(signing_key(settings))
    assert [(f.verdict, f.code) for f in told] == [("warn", Code.WELL)]
    assert Report(tuple(told)).light is Code.WELL

    disk_full = Finding("disk", "warn", "0.1 GiB free")
    running_file(file, light={"code": "no_broker"})
    assert Report((disk_full,), RunningNode.of(settings)).light is Code.NO_BROKER
    for odd in ({"code": "of another version"}, None, [], {}):
        running_file(file, light=odd, uptime_s=odd)
        running = RunningNode.of(settings)
        assert running is not None
        assert Report((disk_full,), running).record()["light"]["code"] == "store"
        assert running.sentence.endswith("up 0 s")


def test_what_the_light_of_a_node_that_runs_does_not_say_is_read_back_as_that(
    tmp_path: Path,
) -> None:
    settings, file = of_a_node(tmp_path)
    lid = Finding("enclosure", "warn", "it was opened once", "see who", lit=False)
    silent = Finding("microphone", "warn", "silent", "see its cable", "2")
    well = Finding("power", "pass", "holds")
    odd = [finding_record(replace(silent, which=str(n))) for n in (3, 4)]
    odd[0]["light"], odd[1]["light"] = None, {"code": "of another version"}
    running_file(file, checks=[*map(finding_record, (lid, silent, well)), *odd])
    running = RunningNode.of(settings)
    assert running is not None
    assert not running.ended.lit
    found = {f.name: f for f in running.findings(settings)}
    assert found["enclosure"] == lid
    assert (found["microphone 2"], found["power"]) == (silent, replace(well, advice=""))
    assert {found[f"microphone {n}"].code for n in (3, 4)} == {Code.MICROPHONE}


@pytest.mark.parametrize("changes", [
    *({"uptime_s": odd} for odd in (math.inf, math.nan, 10**400, "90", None)),
    *({"broker": odd} for odd in ([], None, "connected", 7)),
    {"site": [], "node_id": {}, "device": None, "utc": []},
])  # fmt: skip
def test_what_is_spoilt_in_the_file_of_a_node_that_runs_stops_no_check(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings, file = of_a_node(tmp_path)
    running_file(file, **changes)
    running = RunningNode.of(settings)
    assert running is not None
    assert "asked the running node" in running.sentence
    (told,) = [f for f in running.findings(settings) if f.check == "broker"]
    assert (told.verdict == "warn") == ("broker" in changes)
    record = Report((told,), running).record()
    json.dumps(record, allow_nan=False)
    assert ("uptime_s" in changes) == (record["running"]["uptime_s"] == 0)


def test_a_node_that_ends_while_it_is_asked_is_not_told_to_be_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, file = of_a_node(tmp_path)
    running_file(file)

    def ends(_settings: Settings) -> list[Finding]:
        file.unlink()
        return []

    monkeypatch.setattr("node.check.model", ends)  # what is told of the tests may come too late
    report = checks(settings, DeafSource(settings.capture), quietly)
    told = {finding.name: finding for finding in report.findings}
    assert told["last run"].verdict == "fail"
    assert f"pid {os.getpid()}" in told["last run"].figure
    assert "sound card" not in told
    assert report.running is None


def test_a_node_that_waits_for_its_disk_is_asked_and_not_to_be_started_anew(
    tmp_path: Path,
) -> None:
    settings, file = of_a_node(tmp_path)
    running_file(file, written_monotonic_s=time.monotonic() - 25)
    report = checks(settings, DeafSource(settings.capture), quietly)
    assert report.running is not None
    (told,) = [finding for finding in report.findings if finding.check == "last run"]
    assert (told.verdict, told.code) == ("warn", Code.WELL)
    assert told.figure.startswith(f"the node (pid {os.getpid()}) keeps its word back")
    assert "wait a minute" in told.next_step
    assert not any("restart" in finding.next_step for finding in report.findings)


def test_a_clap_is_heard_by_the_node_that_runs(tmp_path: Path) -> None:
    settings, file = of_a_node(tmp_path)
    old = {"onset_utc": "2026-07-04T22:13:04.900000000Z", "direction": None}
    clap = {
        "onset_utc": "2026-07-04T22:13:06.900000000Z",
        "snr_db": 31.0,
        "direction": {"azimuth_deg": 39.6, "elevation_deg": None, "sigma_deg": 1.2},
    }
    running_file(file, detections=[old])
    running = RunningNode.of(settings)
    assert running is not None
    running_file(file, detections=[old, clap])
    assert next(running.claps(2.0))["onset_utc"] == clap["onset_utc"]
    running_file(file, detections=[old])
    assert list(running.claps(0.6)) == []


def holding(proc: Path, program: str, command: str = "") -> None:
    sub = proc / "asound/card2/pcm0c/sub0"
    sub.mkdir(parents=True)
    (sub / "status").write_text("state: RUNNING\nowner_pid   : 4321\n")
    (sub / "info").write_text("card: 2\nid: USB Audio\nname: USB Audio\n")
    (proc / "asound/cards").write_text(
        " 0 [Headphones     ]: bcm2835 - bcm2835 Headphones\n"
        "                      bcm2835 Headphones\n"
        " 2 [U192k          ]: USB-Audio - UMC404HD 192k\n"
        "                      BEHRINGER UMC404HD 192k at usb-1\n"
    )
    (proc / "4321").mkdir()
    (proc / "4321/comm").write_text(f"{program}\n")
    (proc / "4321/cmdline").write_text(command.replace(" ", "\0"))


@pytest.mark.parametrize(
    ("program", "command", "figure", "advice"),
    [
        ("pipewire", "", "the sound server (pipewire, pid 4321)", "systemctl --user stop"),
        ("arecord", "arecord -D hw:2", "the program (arecord, pid 4321)", "kill 4321"),
        ("python3", "/usr/bin/python3 /opt/bin/gunfire-node run",
         "another gunfire-node (gunfire-node, pid 4321)", "systemctl restart gunfire-node"),
    ],
)  # fmt: skip
def test_who_holds_a_card_is_told_by_what_kind_of_thing_it_is(
    tmp_path: Path, program: str, command: str, figure: str, advice: str
) -> None:
    holding(tmp_path, program, command)
    held = holder_of("UMC404HD", tmp_path)
    assert held is not None
    assert held.figure == f"UMC404HD 192k is held by {figure}"
    assert advice in held.advice
    assert holder_of("Scarlett", tmp_path) is None


def test_a_node_that_runs_without_a_status_file_is_not_thrown_out_of_its_broker(
    tmp_path: Path,
) -> None:
    settings = bare(tmp_path)
    assert outbox_user(settings.outbox.path) is None
    keeps = f"import time; f = open({str(settings.outbox.path)!r}, 'w'); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", keeps]) as other:
        try:
            until_s = time.monotonic() + 20
            while outbox_user(settings.outbox.path) is None and time.monotonic() < until_s:
                time.sleep(0.05)
            (told,) = broker(settings)
            assert list(hung(settings)) == []
            file = settings.health.status_file
            assert file is not None
            for age_s, count in ((0, 0), (30, 0), (80, 1)):
                running_file(file, pid=other.pid, written_monotonic_s=time.monotonic() - age_s)
                hangs = list(hung(settings))
                assert len(hangs) == count
            assert (hangs[0].verdict, hangs[0].code) == ("fail", Code.WELL)
            assert hangs[0].figure.endswith("hangs: its last word is 1 min 20 s old")
        finally:
            other.kill()
    assert told.verdict == "warn"
    assert f"a node runs (pid {other.pid})" in told.figure
    assert told.code is Code.WELL  # for what was not tested no fault is counted


def test_a_certificate_that_ends_soon_is_the_operators_and_no_broker_that_is_away(
    tmp_path: Path,
) -> None:
    ends = datetime.now(UTC) + timedelta(days=5)
    ours = FleetCa(tmp_path / "fleet").issue("n1", not_after=ends)
    mqtt = {"url": "mqtts://127.0.0.1:1", "cert_file": ours.certificate, "key_file": ours.key}
    told = {finding.name: finding for finding in broker(bare(tmp_path, mqtt=mqtt))}
    assert told["broker"].code is Code.NO_BROKER
    assert told["certificate 1"].verdict == "warn"
    assert told["certificate 1"].code is Code.STORE
    assert "put a new one in its place" in told["certificate 1"].next_step


@pytest.mark.parametrize(
    ("proven", "reason", "figure", "advice"),
    [
        (False, "channels 0 and 1 carry the same: see the card's mixer",
         "channels 0 and 1 carry the same", "see the card's mixer"),
        (False, "rotated; they are in order again when it is opened anew",
         "rotated", "start anew: they are in order again when it is opened anew"),
        (None, "no pulse on channel 4: see the receiver's cable",
         "no pulse on channel 4", "see the receiver's cable"),
    ],
)  # fmt: skip
def test_of_channels_in_another_order_it_says_once_what_to_do(
    proven: bool | None, reason: str, figure: str, advice: str
) -> None:
    ears = SimpleNamespace(order=SimpleNamespace(state=OrderState(proven, reason)))
    told = order_finding(ears, "square_65mm")  # type: ignore[arg-type]
    assert (told.figure, told.advice) == (f"array square_65mm: {figure}", advice)


UNUSUAL = (
    *("settings", "last run", "clap", "heading", "certificate", "enrolment", "update", "metrics"),
    "maintenance",
)


def report_of(*findings: Finding) -> Report:
    return Report(findings)


def lines(report: Report) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(screen(report))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_good_node_is_a_screen_that_ends_in_ready() -> None:
    figure = "-52 dBFS rms, peak -31 dBFS, floor -60 dBFS in the trigger's band"
    microphones = [Finding("microphone", "pass", figure, which=str(i)) for i in range(8)]
    rest = [
        Finding(name, "pass", "well, and told in no more than one line")
        for name in CHECKS
        if name not in ("microphone", "microphones", *UNUSUAL)
    ]
    told = lines(report_of(*microphones, Finding("microphones", "pass", "8 of 8 work"), *rest))
    assert len(told) <= 24
    assert all(len(line) <= 80 for line in told)
    assert any("8 of 8 work; -52, -52, -52" in line for line in told)
    assert told[-2].strip() == "READY"
    assert told[-1] == "light once the node runs: it hears, and all is well"


def test_a_bad_one_ends_in_not_ready_and_wraps_figures_under_their_column() -> None:
    long = "a figure that goes on " * 6
    told = lines(
        report_of(Finding("disk", "fail", long.strip()), Finding("broker", "warn", "away"))
    )
    assert told[0].startswith("FAIL disk   a figure")
    assert told[1].startswith(" " * 12)
    assert told[1][12] != " "
    assert "→ free some space" in "\n".join(told)
    assert told[-2].strip() == "NOT READY  1 failed, 1 to look at"
    assert told[-1].startswith("light once the node runs: 2 long, 6 short: nothing can be written")


def test_programs_read_verdict_light_and_checks() -> None:
    told = report_of(Finding("broker", "warn", "away")).record()
    assert (told["verdict"], told["failed"], told["to_look_at"]) == ("ready", 0, 1)
    assert (told["light"]["long"], told["light"]["short"]) == (1, 2)
    assert told["checks"][0]["name"] == "broker"
    assert told["running"] is None


def test_programs_read_every_character_whatever_the_terminal_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = report_of(Finding("temperature", "warn", "81 °C → hot"))
    monkeypatch.setattr("node.cli.check.checks", lambda *_: report)
    done = CliRunner(charset="ascii").invoke(cli, ["check", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == report.record()
