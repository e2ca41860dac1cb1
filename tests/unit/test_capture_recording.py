"""Recordings as a source: bit for bit, in flat memory, and every bad file a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from node.capture import GeodeticPlace, LocalPlace, RecordingSource
from node.errors import RecordingError
from node.utc import parse_utc_ns

SHARED = Path(__file__).parents[3] / "shared" / "data"


def read(path: Path, **kwargs: int) -> np.ndarray:
    with RecordingSource(path, **kwargs) as source:
        return np.concatenate([block.frames for block in source.blocks()])


def noise(frames: int, channels: int, dtype: type = np.int16) -> np.ndarray:
    info = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    return rng.integers(info.min, info.max, (frames, channels), dtype, endpoint=True)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.w64", "a.au"])
@pytest.mark.parametrize("channels", [1, 4, 8])
def test_sixteen_bits_come_out_as_they_went_in(tmp_path: Path, name: str, channels: int) -> None:
    frames = noise(10_001, channels)
    soundfile.write(tmp_path / name, frames, 12_000, subtype="PCM_16")
    assert read(tmp_path / name).dtype == np.int16
    assert np.array_equal(read(tmp_path / name, block_frames=777), frames)


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_32"), ("a.wav", "PCM_24")])
def test_wider_integers_stand_in_the_upper_bits_of_32(
    tmp_path: Path, name: str, subtype: str
) -> None:
    frames = noise(1000, 2, np.int32)
    if subtype == "PCM_24":
        frames &= ~0xFF
    soundfile.write(tmp_path / name, frames, 96_000, subtype=subtype)
    assert np.array_equal(read(tmp_path / name), frames)


def test_floats_stay_floats_even_above_full_scale(tmp_path: Path) -> None:
    frames = np.linspace(-3, 3, 2000, dtype=np.float32).reshape(-1, 2)
    soundfile.write(tmp_path / "a.wav", frames, 48_000, subtype="FLOAT")
    assert np.array_equal(read(tmp_path / "a.wav"), frames)


def test_a_form_that_cannot_be_wound_back_is_read_from_its_first_frame_each_time(
    tmp_path: Path,
) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1600, 1), 8_000, subtype="GSM610")
    with RecordingSource(tmp_path / "a.wav") as source:
        once = np.concatenate([block.frames for block in source.blocks()])
        again = np.concatenate([block.frames for block in source.blocks()])
    assert len(once) == source.frames
    assert np.array_equal(once, again)


@pytest.mark.parametrize("rate", [4_000, 12_000, 44_100, 192_000, 384_000])
@pytest.mark.parametrize("channels", [1, 64])
def test_any_rate_and_number_of_channels_is_taken(tmp_path: Path, rate: int, channels: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(500, channels), rate)
    with RecordingSource(tmp_path / "a.wav") as source:
        assert (source.sample_rate_hz, source.channels, source.frames) == (rate, channels, 500)
        assert all(block.host_time_ns is None for block in source.blocks())


@given(block_frames=st.integers(1, 700), frames=st.integers(2, 1500))
@settings(max_examples=40)
def test_blocks_join_without_a_seam(
    tmp_path_factory: pytest.TempPathFactory, block_frames: int, frames: int
) -> None:
    path = tmp_path_factory.mktemp("seam") / "a.wav"
    soundfile.write(path, noise(frames, 1), 8_000)
    expected = 0
    with RecordingSource(path, block_frames=block_frames) as source:
        for block in source.blocks():
            assert block.first_sample == expected
            expected = block.end_sample
    assert expected == frames


def test_close_ends_it_after_the_block_under_way(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100_000, 1), 8_000)
    with RecordingSource(tmp_path / "a.wav", block_frames=100) as source:
        for block in source.blocks():
            if block.first_sample == 300:
                source.close()
    assert block.first_sample == 300


def test_an_eight_hour_file_keeps_memory_flat(tmp_path: Path) -> None:
    path, seconds, rate = tmp_path / "night.flac", 8 * 3600, 4_000
    with soundfile.SoundFile(path, "w", rate, 1, subtype="PCM_16") as file:
        for _ in range(seconds // 3600):
            file.write(np.zeros(rate * 3600, np.int16))
    script = """
import resource, sys
from node.capture import RecordingSource
source = RecordingSource(sys.argv[1])
with source:
    blocks = source.blocks()
    next(blocks)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    last = max(block.end_sample for block in blocks)
print(last, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    told = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    frames, grown_kib = map(int, told.stdout.split())
    assert frames == seconds * rate
    assert grown_kib < 8_000


def test_the_live_fire_set_knows_who_when_and_where() -> None:
    path = SHARED / "pittsburgh/FP1/test_001/test_001.audio.SCP-00-BNG-5567.flac"
    if not path.exists():
        pytest.skip("the live-fire recordings of ../shared/data are not here")
    source = RecordingSource(path)
    assert source.identity.node_id == "SCP-00-BNG-5567"
    assert source.identity.start_utc_ns == parse_utc_ns("2018-12-19T00:49:26Z")
    assert source.identity.local == LocalPlace(
        -11625.3960530303, 3373.84941826388, -125.092069366200
    )
    assert (source.sample_rate_hz, source.frames) == (12_000, 120_000)


def test_arguments_stand_above_the_sidecar(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(10, 1), 8_000)
    (tmp_path / "a.json").write_text(
        json.dumps(
            {
                "serial_number": "node-1",
                "timestamp": "2024-02-29T23:59:59.999999999+01:00",
                "position": {"lat_deg": 40.4, "lon_deg": -79.9, "alt_m": 250, "sigma_m": 2},
            }
        )
    )
    plain = RecordingSource(tmp_path / "a.wav").identity
    assert plain.start_utc_ns == parse_utc_ns("2024-02-29T22:59:59.999999999Z")
    assert plain.position == GeodeticPlace(40.4, -79.9, 250.0, 2.0)
    told = RecordingSource(tmp_path / "a.wav", node_id="x", start_utc_ns=5).identity
    assert (told.node_id, told.start_utc_ns) == ("x", 5)
    assert told.position == plain.position


def test_the_sidecar_tells_how_the_array_stands_and_where_the_pulse_is(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(10, 3), 8_000)
    told = {
        "array": "mast.toml",
        "microphones_m": [[0, 0, 0], [0.1, -0.2, 0.3]],
        "heading_deg": -360,
        "pitch_deg": 12.5,
        "roll_deg": None,
        "pps_channel": 2,
    }
    (tmp_path / "a.json").write_text(json.dumps(told))
    identity = RecordingSource(tmp_path / "a.wav").identity
    assert identity.array == "mast.toml"
    assert identity.microphones_m == ((0, 0, 0), (0.1, -0.2, 0.3))
    assert (identity.heading_deg, identity.pitch_deg, identity.roll_deg) == (-360, 12.5, 0)
    assert identity.pps_channel == 2


def refusal(path: Path) -> str:
    with pytest.raises(RecordingError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message or str(path.with_suffix(".json")) in message
    return message


def test_what_is_no_recording_is_refused_in_a_line(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.wav")
    assert "directory" in refusal(tmp_path)
    (tmp_path / "empty.wav").write_bytes(b"")
    assert "empty" in refusal(tmp_path / "empty.wav")
    for name in ("text.wav", "text.raw", "text"):
        (tmp_path / name).write_text("This is not audio.\n" * 20)
        assert "not a recording" in refusal(tmp_path / name)


def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to("pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path / "link.wav", Path("/dev/null")):
        # In a process of its own: an open of a pipe would wait for ever.
        program = f"from node.capture import RecordingSource; RecordingSource({str(path)!r})"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=20
        )
        assert f"{path}: not a regular file; save it to a file first" in done.stderr


@pytest.mark.parametrize("frames", [0, 1])
def test_no_sample_or_a_single_one_is_nothing_to_hear(tmp_path: Path, frames: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(frames, 1), 8_000)
    assert "nothing to be heard" in refusal(tmp_path / "a.wav")


def test_too_many_channels_and_impossible_rates_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "many.wav", np.zeros((10, 300), np.int16), 48_000)
    assert "300 channels" in refusal(tmp_path / "many.wav")
    soundfile.write(tmp_path / "slow.wav", noise(100, 1), 1_000)
    assert "1000 Hz" in refusal(tmp_path / "slow.wav")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_named(tmp_path: Path, bad: float) -> None:
    frames = np.zeros((9000, 2), np.float32)
    frames[7_777, 1] = bad
    soundfile.write(tmp_path / "a.wav", frames, 48_000, subtype="FLOAT")
    assert "sample 7777 of channel 1" in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.rf64", "a.mp3"])
def test_a_file_cut_short_gives_what_it_has_and_then_says_so(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, noise(96_000, 1), 48_000)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert "cut short" in refusal(tmp_path / name)
    with RecordingSource(tmp_path / name) as source:
        blocks = source.blocks()
        assert len(next(blocks).frames) == 4096


def test_bytes_gone_bad_in_the_middle_are_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", noise(96_000, 1), 48_000)
    broken = bytearray((tmp_path / "a.flac").read_bytes())
    middle = len(broken) // 2
    broken[middle : middle + 30_000] = bytes(30_000)
    (tmp_path / "a.flac").write_bytes(broken)
    assert "corrupt" in refusal(tmp_path / "a.flac")


def test_a_header_that_does_not_know_its_length_is_no_error(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1000, 1), 48_000)
    streamed = bytearray((tmp_path / "a.wav").read_bytes())
    streamed[4:8] = streamed[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(streamed)
    assert np.array_equal(read(tmp_path / "a.wav"), noise(1000, 1))


@pytest.mark.parametrize(
    ("sidecar", "told"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"timestamp": "yesterday"}', "RFC 3339"),
        ('{"timestamp": 7}', "timestamp"),
        ('{"timestamp": "2023-02-29T00:00:00Z"}', "2023-02-29"),
        ('{"location": {"x": 1, "y": 2}}', "location.z"),
        ('{"location": {"x": 1, "y": 2, "z": NaN}}', "location.z"),
        ('{"location": [1, 2, 3]}', "location"),
        ('{"position": {"lat_deg": 91, "lon_deg": 0, "alt_m": 0}}', "not on the Earth"),
        ('{"position": {"lat_deg": 1, "lon_deg": 2, "alt_m": 99999}}', "position.alt_m"),
        ('{"position": {"lat_deg": 1, "lon_deg": 2, "alt_m": 0, "sigma_m": 1e300}}', "sigma_m"),
        (f'{{"location": {{"x": {10**400}, "y": 2, "z": 0}}}}', "location.x"),
        pytest.param("[" * 200_000, "not JSON", id="nested too deep"),
        ('{"serial_number": ""}', "serial_number"),
        (r'{"serial_number": "\ud800"}', "serial_number is not text that UTF-8 can hold; mend it"),
        (r'{"timestamp": "\udc00"}', "timestamp is not text that UTF-8 can hold"),
        (r'{"array": "a\ud83d.toml"}', "array is not text that UTF-8 can hold"),
        ('{"location": {"x": 1e300, "y": 2, "z": 0}}', "location.x is 1e+300, outside of ±1000 km"),
        ('{"position": {"x": 0, "y": 2, "z": -2e6}}', "position.z is -2e+06, outside of"),
        ('{"heading_deg": 361}', "json: heading_deg is 361, outside of ±360 degrees; mend it"),
        ('{"heading_deg": -360.5}', "heading_deg is -360.5, outside of"),
        ('{"pitch_deg": "steep"}', "json: pitch_deg is not a number; mend it"),
        ('{"roll_deg": true}', "roll_deg is not a number"),
        ('{"roll_deg": NaN}', "roll_deg is not a finite number"),
        ('{"pps_channel": -1}', "pps_channel is not the number of a channel, from 0"),
        ('{"pps_channel": 1.0}', "pps_channel is not the number"),
        ('{"pps_channel": true}', "pps_channel is not the number"),
        ('{"array": 4}', "array is not a text"),
        ('{"microphones_m": []}', "microphones_m is not a list of [x, y, z]"),
        ('{"microphones_m": [[0, 0]]}', "microphones_m[0] is not a list of x, y and z"),
        ('{"microphones_m": [[0, 0, 0], [0, "1", 0]]}', "microphones_m[1].y is not a number"),
        ('{"microphones_m": [[0, 0, 0], [0, 0, 141]]}', "microphones_m[1] reaches 141 m, at most"),
        ('{"microphones_m": [[1e300, 0, 0]]}', "give metres, not millimetres"),
        (
            '{"microphones_m": [[0, 0, 0], [1, 0, 0], [1, 0, 1e-4]]}',
            "json: microphones_m: channels 1 and 2 are at one place; give each microphone its own; "
            "mend it",
        ),
        (
            '{"microphones_m": [[0, 0, 0], [3.5, 0, 0]]}',
            "microphones_m: channels 0 and 1 are 3.5 m apart, at most 3 m are taken",
        ),
        pytest.param(
            json.dumps({"microphones_m": [[0.01 * k, 0, 0] for k in range(65)]}),
            "microphones_m: 65 microphones, at most 64 are taken",
            id="more microphones than a card has",
        ),
        ("\udcff", "not JSON"),
    ],
)
def test_a_bad_sidecar_is_refused_by_its_own_name(tmp_path: Path, sidecar: str, told: str) -> None:
    soundfile.write(tmp_path / "a.wav", noise(10, 1), 8_000)
    (tmp_path / "a.json").write_bytes(sidecar.encode(errors="surrogateescape"))
    message = refusal(tmp_path / "a.wav")
    assert "a.json" in message
    assert told in message
