"""The command line: what goes wrong is told in one line that names it, with exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from hil.fleet_ca import FleetCa

from node.cli import COMMANDS, main
from node.deliver import BrokerAddress
from node.messages import json_schema, parse_detection
from node.network import PrivateBroker, Subscription
from node.settings import load
from tests.hil.process import GUNFIRE_NODE

RATE_HZ = 16_000


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["gunfire-node", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        code = left.value.code
        return Done(code if isinstance(code, int) else 0, said.out, said.err)

    return run


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    """Write two seconds of noise with a sharp decaying burst at 0.8 s, of a known start."""
    rng = np.random.default_rng(5)
    sound = rng.normal(0, 1e-3, 2 * RATE_HZ)
    n = np.arange(RATE_HZ // 4)
    sound[12_800 : 12_800 + len(n)] += 0.5 * np.exp(-n / 400) * rng.normal(0, 1, len(n))
    path = tmp_path / "shot.flac"
    soundfile.write(path, sound.clip(-1, 1), RATE_HZ)
    path.with_suffix(".json").write_text(
        '{"serial_number": "roof-1", "timestamp": "2026-07-04T22:00:00.500Z", '
        '"location": {"x": 1, "y": 2, "z": 3}}'
    )
    return path


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("this is no recording")


def _one_sample(path: Path) -> None:
    soundfile.write(path, np.zeros(1), RATE_HZ)


def _no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), RATE_HZ)


def _not_a_number(path: Path) -> None:
    sound = np.zeros(RATE_HZ, np.float32)
    sound[100] = np.nan
    soundfile.write(path, sound, RATE_HZ, subtype="FLOAT")


def _many_channels(path: Path) -> None:
    soundfile.write(path, np.zeros((64, 300)), RATE_HZ)


def _cut_short(path: Path) -> None:
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, RATE_HZ), RATE_HZ)
    path.write_bytes(path.read_bytes()[: RATE_HZ // 2])


def _nothing(path: Path) -> None:
    pass


BAD = {
    "missing": _nothing,
    "a directory": lambda path: path.mkdir(),
    "empty": _empty,
    "not audio": _text,
    "without samples": _no_samples,
    "of one sample": _one_sample,
    "with a NaN": _not_a_number,
    "of 300 channels": _many_channels,
    "cut short": _cut_short,
}


@pytest.mark.parametrize("command", ["replay", "classify"])
@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD.keys())
def test_a_bad_recording_is_named_in_one_line_and_the_good_ones_are_still_heard(
    run: Run, shot: Path, command: str, spoil: Callable[[Path], None]
) -> None:
    bad = shot.with_name("bad.wav")
    spoil(bad)
    done = run(command, bad, shot, "--jsonl")
    assert done.code == 2
    assert [line for line in done.err.splitlines() if line] == [done.err.strip()]
    assert done.err.startswith("gunfire-node: ")
    assert "bad.wav" in done.err
    assert len(done.out.splitlines()) >= 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["config", "check", "--config", "/none.toml"], "/none.toml: cannot be read"),
        (["check", "--mount", "--json"], "without --json"),
        (["simulate", "/none.toml", "-o", "/none"], "/none.toml: cannot be read"),
        (["watch", "--broker", "ftp://x"], "mqtt://host:port"),
        (["watch", "--broker", "mqtt://127.0.0.1:9"], "nothing listens there"),
        (["classify", "x.wav", "--model", "/none.tflite"], "/none.json"),
        (["nonsense"], "No such command"),
        (["replay"], "Missing argument"),
        (["replay", "x.wav", "--start", "yesterday"], "yesterday"),
        (["replay", "a.wav", "b.wav", "--plot", "c.png"], "name one file"),
        (["replay", "a.wav", "--site", "a/b"], "is not a name"),
        (["watch", "--site", "#"], "is not a name"),
    ],
)
def test_a_bad_argument_is_named_with_exit_code_2(
    run: Run, arguments: list[str], named: str
) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert named in done.err
    assert "Traceback" not in done.err


def test_an_array_that_does_not_fit_the_recording_is_refused(run: Run, shot: Path) -> None:
    done = run("replay", shot, "--array", "square_65mm")
    assert done.code == 2
    assert "has 4 microphones, the source 1 channels" in done.err


def test_replay_prints_valid_detections_and_the_same_bytes_each_time(run: Run, shot: Path) -> None:
    first, second = run("replay", shot, "--jsonl"), run("replay", shot, "--jsonl")
    assert first == second
    assert first.code == 0
    (line,) = first.out.splitlines()
    detection = parse_detection(line)
    assert detection.node_id == "roof-1"
    assert detection.seq == 1
    assert detection.onset_utc.startswith("2026-07-04T22:00:01.29999") or (
        detection.onset_utc.startswith("2026-07-04T22:00:01.300")
    )
    assert detection.local is not None
    assert not {"transport", "prev_hash", "signature"} & json.loads(line).keys()


def test_two_recordings_of_one_node_and_start_are_not_mixed_up(run: Run, shot: Path) -> None:
    twin = shot.with_name("twin.flac")
    twin.write_bytes(shot.read_bytes())
    twin.with_suffix(".json").write_text(shot.with_suffix(".json").read_text())
    done = run("replay", shot, twin, "--jsonl")
    assert done.code == 2
    assert "twin.flac: node roof-1 with this start was heard already, in" in done.err
    assert len(done.out.splitlines()) == 1


def test_names_that_a_topic_cannot_hold_stay_apart(run: Run, shot: Path) -> None:
    names = []
    for name in ("ночь.flac", "утро.flac"):
        file = shot.with_name(name)
        file.write_bytes(shot.read_bytes())
        names.append(file)
    done = run("replay", *names, "--jsonl")
    assert done.code == 0
    assert len({parse_detection(line).node_id for line in done.out.splitlines()}) == 2


def test_a_start_beyond_what_64_bits_hold_is_refused(run: Run, shot: Path) -> None:
    done = run("replay", shot, "--start", "2262-04-11T23:47:16Z")
    assert done.code == 2
    assert "ends after the year 2262" in done.err


def test_start_stands_above_the_sidecar(run: Run, shot: Path) -> None:
    done = run("replay", shot, "--start", "2020-01-01T00:00:00Z", "--jsonl")
    assert '"onset_utc":"2020-01-01T00:00:00.' in done.out


def test_replay_draws_a_picture(run: Run, shot: Path, tmp_path: Path) -> None:
    picture = tmp_path / "shot.png"
    assert run("replay", shot, "--plot", picture).code == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_replay_publishes_to_a_broker_what_it_prints(run: Run, shot: Path) -> None:
    with PrivateBroker() as broker, Subscription(BrokerAddress.from_url(broker.url)) as words:
        done = run("replay", shot, "--broker", broker.url, "--jsonl")
        word = words.next(5)
    assert word is not None
    assert word.topic == "gunfire/v1/replay/roof-1/detection"
    assert word.message.model_copy(update={"transport": None}) == parse_detection(done.out)


def test_replay_publishes_over_tls_with_the_settings_certificates(
    run: Run, shot: Path, tmp_path: Path
) -> None:
    ca = FleetCa(tmp_path / "fleet")
    server, client = ca.issue("server", addresses=["127.0.0.1"]), ca.issue("roof-1")
    demands = (
        f"cafile {ca.certificate_file}\ncertfile {server.certificate}\nkeyfile {server.key}\n"
        "require_certificate true\n"
    )
    settings = tmp_path / "node.toml"
    settings.write_text(
        f'[mqtt]\nurl = "mqtts://broker.example"\nca_file = "{ca.certificate_file}"\n'
        f'cert_file = "{client.certificate}"\nkey_file = "{client.key}"\n'
    )
    with PrivateBroker(extra=demands) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}"
        address = BrokerAddress.from_settings(load(settings).settings.mqtt, url)
        with Subscription(address) as words:
            done = run("replay", shot, "--broker", url, "--config", settings, "--jsonl")
            word = words.next(5)
    assert done.code == 0
    assert word is not None
    assert word.message.model_copy(update={"transport": None}) == parse_detection(done.out)


def test_a_scene_is_simulated_and_replayed_with_its_truth(run: Run, tmp_path: Path) -> None:
    scene = tmp_path / "scene.toml"
    scene.write_text(
        'name = "s"\nduration_s = 6.0\nseed = 1\nstart_utc = 2026-01-01T00:00:00Z\n'
        '[[sources]]\nkind = "muzzle_blast"\ncalibre = "9mm"\ntime_s = 2.0\nx_m = 60.0\ny_m = 0.0\n'
        '[[nodes]]\nid = "n1"\nx_m = 0.0\ny_m = 0.0\nz_m = 5.0\narray = "square_65mm"\n'
    )
    assert run("simulate", scene, "-o", tmp_path / "out").code == 0
    truth = json.loads((tmp_path / "out" / "truth.json").read_text())
    done = run("replay", tmp_path / "out" / "n1.wav", "--jsonl")
    onset = json.loads(done.out.splitlines()[0])["onset_utc"]
    assert onset[:21] == truth["nodes"][0]["arrivals"][0]["utc"][:21]


def test_config_shows_where_a_setting_came_from_and_prints_the_schemas(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[node]\nid = "roof-9"\n')
    rows = json.loads(run("config", "show", "--config", file, "--json").out)
    assert {"name": "node.id", "value": "roof-9", "from": str(file)} in rows
    assert json.loads(run("config", "schema", "detection").out) == json_schema("detection")
    assert "capture" in json.loads(run("config", "schema").out)["properties"]


def test_check_tells_each_part_and_fails_without_a_sound_card(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'[capture]\ndevice = "no such"\n[outbox]\npath = "{tmp_path}/o.sqlite3"\n')
    done = run("check", "--config", file, "--json")
    report = json.loads(done.out)
    findings = {finding["name"]: finding for finding in report["checks"]}
    assert done.code == 1
    assert report["verdict"] == "not_ready"
    assert (report["light"]["long"], report["light"]["short"]) == (2, 1)
    assert findings["sound card"]["verdict"] == "fail"
    assert "no such" in findings["sound card"]["figure"]
    assert findings["model"]["verdict"] == "pass"
    assert findings["disk"]["verdict"] == "pass"
    assert findings["broker"]["verdict"] == "fail"


@pytest.mark.parametrize("command", [*COMMANDS, "config show", "config check", "config schema"])
def test_every_command_explains_itself_with_an_example(run: Run, command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.code == 0
    assert "Example: gunfire-node" in done.out


def test_a_closed_pipe_ends_a_command_without_a_traceback(shot: Path) -> None:
    with subprocess.Popen(
        [*GUNFIRE_NODE, "replay", "--jsonl", *[shot] * 20],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
