"""What a bench borrows of a node: settings, state and /etc/hosts, given back as they were.

They are set aside on the node itself, so that nothing is lost with the machine of the bench:
whoever finds them there gives them back. A file that is written last says that the copy is whole.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import tomli_w

from tests.faults.fleet import Fleet
from tests.hil.rig_command import RigError
from tests.hil.ssh_machine import SshMachine
from tests.hil.unit_stage import SETTINGS
from tests.hil.virtual_bench import BROKER_NAME

ARRAY: Final = "tetrahedron_200mm"
MICROPHONES: Final = 4
_FILES: Final = "/etc/gunfire-node/bench"
_GIVE_BACK: Final = """
kept=/var/lib/gunfire-bench
[ -e $kept ] || exit 0
if [ -e $kept/whole ]; then
  systemctl stop gunfire-node.service
  cp -a $kept/etc/hosts /etc/hosts
  for part in etc var/lib; do
    if [ -e $kept/$part/gunfire-node ]; then
      mkdir -p /$part/gunfire-node
      find /$part/gunfire-node -mindepth 1 -delete
      cp -a $kept/$part/gunfire-node/. /$part/gunfire-node/
    else
      rm -rf /$part/gunfire-node
    fi
  done
  sync
  rm $kept/whole
fi
ran=$(cat $kept/ran 2>/dev/null || true)
rm -rf $kept
for unit in $ran; do systemctl --no-block start $unit; done
"""
_SET_ASIDE: Final = """
kept=/var/lib/gunfire-bench
rm -rf $kept
mkdir -m 700 $kept $kept/etc $kept/var $kept/var/lib
for unit in gunfire-node-enrol.timer gunfire-node.service; do
  case $(systemctl show --value --property ActiveState $unit) in
    active | activating | reloading) echo $unit >>$kept/ran ;;
  esac
  systemctl stop $unit || true
done
touch $kept/ran
[ -e /etc/hosts ] || touch /etc/hosts
cp -a /etc/hosts $kept/etc/
for part in etc var/lib; do
  [ ! -e /$part/gunfire-node ] || cp -a /$part/gunfire-node $kept/$part/
done
sync
touch $kept/whole
sync
[ ! -e /var/lib/gunfire-node ] || find /var/lib/gunfire-node -mindepth 1 -delete
"""


def give_back(machine: SshMachine) -> None:
    """Put settings and state where they were, where they are set aside, and start what ran."""
    machine.run("sh", "-ec", _GIVE_BACK)


@contextmanager
def lent(machine: SshMachine) -> Iterator[dict[str, Any]]:
    """Set a node's settings and state aside; give the settings, and in the end all of it back."""
    give_back(machine)  # of a run that did not come to it
    read = machine.run("cat", SETTINGS, check=False)
    if read.returncode:
        raise RigError(
            f"{machine.host} has no {SETTINGS}: install the node there, and have `gunfire-node "
            "check` say READY (docs/do/install-a-node.md)"
        )
    settings = tomllib.loads(read.stdout)
    settings.setdefault("node", {}).setdefault("id", machine.run("hostname").stdout.strip())
    _check(settings)
    try:
        machine.run("sh", "-ec", _SET_ASIDE)
        yield settings
    finally:
        give_back(machine)


def _check(settings: Mapping[str, Any]) -> None:
    capture, timing = settings.get("capture", {}), settings.get("timing", {})
    others = {*capture.get("silent_channels", ()), timing.get("pps_channel")} - {None}
    microphones = capture.get("channels", 4) - len(others)
    if microphones != MICROPHONES:
        raise RigError(
            f"the node's settings have {microphones} microphones, and the rig plays for "
            f"{MICROPHONES}: set capture.channels and timing.pps_channel as for set-up A or B "
            "(docs/do/install-a-node.md)"
        )


def lend_settings(
    machine: SshMachine, fleet: Fleet, before: Mapping[str, Any], broker: str
) -> None:
    """Write settings and certificates for as long as the tests run."""
    host, _, port = broker.rpartition(":")
    if machine.run(
        "bash", "-c", f"timeout 5 bash -c '</dev/tcp/{host}/{port}'", check=False
    ).returncode:
        raise RigError(
            f"the node does not reach {broker}: is GUNFIRE_RIG_BENCH this machine's address as the "
            "node sees it, and does a firewall here let it in?"
        )
    level = {"array": ARRAY, "heading_deg": 0.0, "pitch_deg": 0.0, "roll_deg": 0.0}
    kept = {name: value for name, value in before.items() if name not in ("integrity", "snippets")}
    machine.run("sh", "-ec", f"echo '{host} {BROKER_NAME}' >>/etc/hosts")
    settings = kept | {
        "capture": before.get("capture", {}) | level,
        "mqtt": {
            "url": f"mqtts://{BROKER_NAME}:{port}",
            "ca_file": f"{_FILES}/ca.crt",
            "cert_file": f"{_FILES}/node.crt",
            "key_file": f"{_FILES}/node.key",
            "reconnect_max_s": 2,
            "keepalive_s": 5,
        },
    }
    machine.write(f"{_FILES}/ca.crt", fleet.ca_file.read_text())
    machine.write(f"{_FILES}/node.crt", fleet.node.certificate.read_text())
    machine.write(f"{_FILES}/node.key", fleet.node.key.read_text(), 0o600)
    machine.run("chown", "gunfire-node:gunfire-node", f"{_FILES}/node.key")
    machine.write(SETTINGS, tomli_w.dumps(settings))
    machine.run("sync")  # power may be cut
