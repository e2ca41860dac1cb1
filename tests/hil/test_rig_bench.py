"""The bench for a rig, without one: a container with a real sshd stands where the Pi would.

Real are OpenSSH on both sides, the node under systemd, Mosquitto with TLS; the card is the virtual
one, and `tests/hil/rig_stand_in.py` is player and witness. Settings and state of the node have to
be to the letter what they were. What only hardware can show, this does not.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.hil import container, rig_bench, virtual_card
from tests.hil.bench import missing_parts
from tests.hil.container import CHECKOUT, NODE, ROOT, Container
from tests.hil.fault import strike
from tests.hil.fault_table import MICROPHONES, PROCESS
from tests.hil.rig_bench import RigBench
from tests.hil.rig_command import Command, Relay, RigError
from tests.hil.rig_loan import lent
from tests.hil.rig_marks import with_marks
from tests.hil.rig_truth import Seconds, Witness
from tests.hil.ssh_machine import SshMachine
from tests.hil.unit_stage import RATE, SETTINGS, Installed, ReceiverInside, hand_in
from tests.hil.virtual_bench import PPM, PULSE, Streams, street
from tests.hil.virtual_card import VirtualCard
from tests.hil.virtual_receiver import Gpsd, VirtualReceiver, free_port

PAGE = (CHECKOUT / "docs" / "do" / "build-a-rig.md").read_text("utf-8")
DRAWING = (CHECKOUT / "docs" / "do" / "rig.svg").read_text("utf-8")
STAND_IN = Path(rig_bench.__file__).with_name("rig_stand_in.py")
MISSING = (
    container.missing()
    or virtual_card.missing_tools()
    or ("ssh (apt: openssh-client)" if not shutil.which("ssh") else None)
    or (
        "a root with sshd (make build/root.made)" if not (ROOT / "usr/sbin/sshd").exists() else None
    )
)
RIGHT_S = 1e-6
"""So far the witness may be off; it was by 5 ns."""
boots = pytest.mark.skipif(MISSING is not None, reason=f"needs {MISSING}")
STRUCK = tuple(
    replace(row, stands_s=3.0)
    for row in (*MICROPHONES, *PROCESS)
    if row.name in ("the node killed", "a microphone inverted")
)
"""By the player the one, by SSH the other."""
ALL_THAT_IT_HAS = (
    "for what in '-printf %p:%y:%m:%u:%g:%T@\\n' '-type f -exec sha256sum {} +'; do "
    "find /etc/gunfire-node /var/lib/gunfire-node /etc/hosts $what | sort; done"
)


def pi_settings(card: str, gpsd: str) -> str:
    return f"""
[node]
id = "pi-1"
site = "roof"
[node.position]
lat_deg = 47.85
lon_deg = 106.2
alt_m = 1280.0
sigma_m = 2.0
[capture]
device = "{card}"
channels = {PULSE + 1}
block_frames = 16384  # a word that a bench has to give back
array = "tetrahedron_200mm"
heading_deg = 123.0
[timing]
gpsd = "{gpsd}"
pps_channel = {PULSE}
[mqtt]
url = "mqtts://broker.elsewhere:8883"
"""


def let_in(machine: Container, folder: Path) -> str:
    """Have a container let us in by SSH, at each boot; give the command that calls it."""
    port = free_port()
    for name in ("host", "ours"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name]
        subprocess.run(make, check=True)
    ours, host = (folder / f"{name}.pub" for name in ("ours", "host"))
    machine.write("/root/.ssh/authorized_keys", ours.read_text(), 0o600)
    machine.write("/etc/ssh/bench_key", (folder / "host").read_text(), 0o600)
    machine.write(
        "/etc/ssh/sshd_config.d/bench.conf",
        f"ListenAddress 127.0.0.1:{port}\nHostKey /etc/ssh/bench_key\nUsePAM no\n",
    )
    wanted = machine.path("/etc/systemd/system/multi-user.target.wants/ssh.service")
    wanted.parent.mkdir(parents=True, exist_ok=True)
    wanted.symlink_to("/lib/systemd/system/ssh.service")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host.read_text()}")
    configuration = folder / "config"
    configuration.write_text(
        f"Host pi\nHostName 127.0.0.1\nPort {port}\n"
        f"IdentityFile {folder}/ours\nIdentitiesOnly yes\n"
        f"UserKnownHostsFile {folder}/known\nStrictHostKeyChecking yes\n"
    )
    return f"ssh -F {configuration}"


@dataclass(frozen=True)
class Pi:
    """What stands where a Pi would, and the variables of its rig."""

    machine: Container
    streams: Streams
    environment: dict[str, str]


@pytest.fixture(scope="module")
def pi(
    product: Installed, wavclock_plugin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pi]:
    with ExitStack() as opened:
        machine = product.machine("pi")
        opened.callback(machine.discard)
        opened.enter_context(container.own_network())
        folder = machine.place / "card"
        sound = np.asarray(street(pulse=True).frames(), np.int32)
        pulse = sound[:, PULSE].copy()
        sound[:, :PULSE] = 0  # until something is played
        card = VirtualCard(folder, wavclock_plugin, sound, RATE, ppm=PPM, align=True, loop=True)
        np.save(folder / "pulse.npy", pulse)
        hand_in(machine, card, folder, wavclock_plugin)
        receiver = opened.enter_context(VirtualReceiver())
        gpsd = opened.enter_context(Gpsd(receiver.device))
        machine.drop_in(NODE, "first", "[Service]\nNice=-10\n")
        machine.write(SETTINGS, pi_settings(card.name, gpsd.address))
        opened.enter_context(ReceiverInside(machine))
        ssh = let_in(machine, tmp_path_factory.mktemp("ssh"))
        streams = opened.enter_context(Streams(card, folder / "truth.json"))
        opened.enter_context(machine)
        machine.until("ssh.service", "active")
        environment = {
            "GUNFIRE_RIG_HOST": "root@pi",
            "GUNFIRE_RIG_BENCH": "127.0.0.2",
            "GUNFIRE_RIG_SSH": ssh,
            "GUNFIRE_RIG_PLAY": f"{sys.executable} {STAND_IN} play {folder}",
            "GUNFIRE_RIG_POWER": "true",  # and the test does it
            "GUNFIRE_RIG_LISTEN": f"{sys.executable} {STAND_IN} listen {folder}",
        }
        yield Pi(machine, streams, environment)


@pytest.mark.hil
@pytest.mark.timeout(180)
@boots
def test_faults_strike_a_node_over_ssh_and_it_is_given_back_as_it_was(pi: Pi) -> None:
    machine = pi.machine
    machine.write("/var/lib/gunfire-node/waits.txt", "to be sent", 0o600)
    machine.systemctl("stop", NODE)
    machine.systemctl("start", "gunfire-node-enrol.timer")
    before = machine.run("sh", "-c", ALL_THAT_IT_HAS).stdout
    with suppress(KeyboardInterrupt), rig_bench.rig_bench(pi.environment) as bench:
        began_ns = time.time_ns()
        assert "elsewhere" not in machine.path(SETTINGS).read_text()
        assert missing_parts(bench, ["power"]) == ""
        assert "GUNFIRE_RIG_USB" in missing_parts(bench, ["card"])
        assert bench.pulse_in_channel
        for row in STRUCK:
            outcome = strike(bench, row)
            assert not outcome.complaints, (row.name, outcome)
            assert outcome.owed >= 1
        errors = errors_s(pi, bench, began_ns)
        assert len(errors) > 5
        assert max(map(abs, errors)) < RIGHT_S
        bench.switches["power"].off()
        machine.stop()
        machine.start()
        bench.switches["power"].on()
        assert bench.machine.systemctl("is-enabled", NODE) == "enabled"
        raise KeyboardInterrupt
    assert machine.run("sh", "-c", ALL_THAT_IT_HAS).stdout == before
    assert machine.show(NODE, "ActiveState") == "inactive"
    assert machine.show("gunfire-node-enrol.timer", "ActiveState") == "active"
    assert list(machine.path("/var/lib").glob("gunfire-bench*")) == []


@pytest.mark.hil
@boots
def test_what_a_bench_that_died_did_not_give_back_is_given_back_by_the_next(pi: Pi) -> None:
    machine = pi.machine
    machine.systemctl("stop", NODE)
    before = machine.run("sh", "-c", ALL_THAT_IT_HAS).stdout
    ssh = shlex.split(pi.environment["GUNFIRE_RIG_SSH"])
    no_player = pi.environment | {"GUNFIRE_RIG_PLAY": ""}
    with SshMachine("root@pi", ssh) as there:
        never_ended = lent(there)
        never_ended.__enter__()
        there.write(SETTINGS, "another's")
        there.write("/var/lib/gunfire-node/new", "another's")
        with pytest.raises(RigError, match=r"^wire a player"):
            list(rig_bench.look(no_player))
        assert machine.run("sh", "-c", ALL_THAT_IT_HAS).stdout == before
        never_ended.__exit__(None, None, None)
    assert machine.run("sh", "-c", ALL_THAT_IT_HAS).stdout == before


def errors_s(pi: Pi, bench: RigBench, from_ns: int) -> list[float]:
    """Give by how much the witness is wrong of each shot, against what the card says of itself."""
    sound = street(pulse=False)
    now_ns = time.time_ns()
    arrivals = [arrival.sample for arrival in sound.arrivals()]
    turn = len(sound.frames())
    true = pi.streams.onsets_utc_ns(arrivals, turn, from_ns - 10**9, now_ns)
    told = bench.onsets_utc_ns(from_ns, now_ns)
    return [min((t - one for one in true), key=abs) / 1e9 for t in told]


def test_a_rig_that_is_not_wired_is_skipped_with_what_to_wire() -> None:
    said = rig_bench.missing({"GUNFIRE_RIG_HOST": "root@node"})
    assert "GUNFIRE_RIG_HOST" not in said
    for name in ("BENCH", "PLAY", "LISTEN"):
        assert f"GUNFIRE_RIG_{name}=" in said
    assert rig_bench.missing({f"GUNFIRE_RIG_{name}": "x" for name in rig_bench.NEEDED}) == ""


def test_the_page_on_the_rig_names_the_variables_that_there_are() -> None:
    names = r"GUNFIRE_RIG_[A-Z_]+"
    assert set(re.findall(names, PAGE)) == set(re.findall(names, str(rig_bench.__doc__)))


def test_the_page_and_the_drawing_of_the_rig_wire_the_relays_alike() -> None:
    relays = r"GPIO (\d+) \(pin (\d+)\)"
    row = next(line for line in PAGE.splitlines() if line.startswith("| relay board"))
    drawn = re.findall(r"GPIO (\d+) · pin (\d+)", DRAWING)
    assert re.findall(relays, row) == drawn
    assert [f"relay {gpio}" for gpio, _ in drawn] == re.findall(r'"(relay \d+)"', PAGE)


def test_an_attenuator_of_the_page_brings_full_scale_to_full_scale_or_a_little_above() -> None:
    rows = re.findall(r"^\|.* dBu \| ([\d.]+) V \| ([\d.]+) (k?)Ω \| ([\d.]+) dB \|$", PAGE, re.M)
    assert len(rows) == 3
    for full_v, r1, kilo, above_db in rows:
        r1_ohm = float(r1) * (1000 if kilo else 1)
        over_db = 20 * math.log10(4.35 * 1000 / (r1_ohm + 1000) / float(full_v))
        assert over_db == pytest.approx(float(above_db), abs=0.15)
        assert 0 < over_db < 1


def test_a_node_that_does_not_answer_is_told_in_a_sentence() -> None:
    ssh = ("ssh", "-F", "/dev/null", "-p", str(free_port()))
    with pytest.raises(RigError, match=r"GUNFIRE_RIG_HOST=root@127.0.0.1 .*Connection refused"):
        SshMachine("root@127.0.0.1", ssh).__enter__()


@pytest.mark.parametrize("may_sudo", [True, False])
def test_who_is_not_root_on_the_node_becomes_it_by_sudo_or_is_told(
    tmp_path: Path, may_sudo: bool
) -> None:
    """Here `ssh` is a script that answers for a node whose user is number 1000."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/bin/sh\n"
        'case "$*" in *" -M "*) while [ "$1" != -S ]; do shift; done; touch "$2"; exec sleep 60\n'
        "esac\n"
        "for line; do :; done\n"
        f'case "$line" in "sudo -n env "*) {"echo 0" if may_sudo else "exit 1"} ;; *) echo 1000\n'
        "esac\n"
    )
    ssh.chmod(0o755)
    if may_sudo:
        with SshMachine("pi@node", [str(ssh)]) as machine:
            assert machine.run("anything").stdout == "0\n"
    else:
        with pytest.raises(RigError, match=r"^pi@node is not root"):
            SshMachine("pi@node", [str(ssh)]).__enter__()


def test_a_relay_is_given_on_or_off_and_one_that_fails_is_told_in_a_sentence(
    tmp_path: Path,
) -> None:
    relay = Relay(Command("GUNFIRE_RIG_USB", f"sh -c 'echo $0 >>{tmp_path}/heard'"))
    relay.off()
    relay.on()
    assert (tmp_path / "heard").read_text() == "off\non\n"
    broken = Relay(Command("GUNFIRE_RIG_USB", "sh -c 'echo no such hub >&2; exit 3'"))
    with pytest.raises(RigError, match=r"^GUNFIRE_RIG_USB: .* off`: ended with 3: no such hub;"):
        broken.off()
    with pytest.raises(RigError, match=r"GUNFIRE_RIG_PULSE: .*No such file"):
        Relay(Command("GUNFIRE_RIG_PULSE", "/nowhere/relay")).on()


def test_a_witness_that_hears_no_pulse_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.hil.rig_truth.CHECK_S", 0.5)
    silence = Command("GUNFIRE_RIG_LISTEN", "sh -c 'head -c 400000 /dev/zero; exec sleep 60'")
    with Witness(silence) as witness, pytest.raises(RigError, match="no pulse in its first input"):
        witness.check_pulses()
    ended = Command("GUNFIRE_RIG_LISTEN", "sh -c 'exit 1'")
    with pytest.raises(RigError, match="ended with 1, and was to go on"):
        ended.start()


def test_a_witness_ends_in_order_with_sound_that_it_has_not_read_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Witness, "_hear", lambda *_: time.sleep(0.5))
    with Witness(Command("GUNFIRE_RIG_LISTEN", "sh -c 'head -c 60000 /dev/zero; exec sleep 60'")):
        pass  # what its thread raises fails this test


def test_marks_have_no_time_where_the_witness_lost_samples_and_a_click_is_no_pulse() -> None:
    seconds = Seconds()
    for frame, utc_s in ((0, 100.0), (RATE, 101.01), (1.4 * RATE, 101.4), (2 * RATE, 102.0)):
        seconds.mark(frame + 4800.0)
        seconds.pulse(frame, utc_s)
    assert seconds.clicks == 1
    assert [round(o / 1e9, 6) for o in seconds.onsets_utc_ns] == [100.1, 101.1, 101.5]
    seconds.onsets_utc_ns.clear()
    for frame, utc_s in ((2.7 * RATE, 103.0), (3.7 * RATE, 104.0), (4.7 * RATE, 105.0)):
        seconds.mark(frame + 4800.0)  # 0.3 s were lost before the first of these
        seconds.pulse(frame, utc_s)
    assert [round(o / 1e9, 6) for o in seconds.onsets_utc_ns] == [103.1, 104.1]


def test_marks_stand_where_shots_arrive_and_leave_the_microphones_as_they_are() -> None:
    frames = np.full((RATE, 4), 7, np.int32)
    marked = with_marks(frames, [1000.25, 30_000.0])
    assert (marked[:, :4] == frames).all()
    marks = marked[:, 4].astype(np.float64)
    middle = (marks[:2000] * np.arange(2000)).sum() / marks[:2000].sum()
    assert middle == pytest.approx(1000.25, abs=1e-3)
    assert int(np.argmax(marks[2000:])) + 2000 == 30_000
