"""`make bench`: what the node costs, beside a peer in the same run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyperf
import soundfile
from rich.console import Console
from scipy.signal import resample_poly

from node.demo import Street, play
from tests.bench import daemon, yamnet
from tests.evidence import ROOT, Claim, publish

console = Console(stderr=True)

STARTS = 7
MOST_RESIDENT_MIB = 120  # of a Pi Zero 2 W's 512


def _seconds(workload: str, recording: Path) -> float:
    """Give the mean time of one pass, by pyperf: three processes, three values each."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        counts = ["--processes", "3", "--values", "3", "--warmups", "1", "--loops", "1"]
        arguments = ["-m", "tests.bench.cost", workload, str(recording), "--quiet", "-o", str(out)]
        subprocess.run([sys.executable, *arguments, *counts], cwd=ROOT, check=True)
        return float(pyperf.Benchmark.load(str(out)).mean())


def _bytes(workload: str, recording: Path) -> int:
    arguments = ["-m", "tests.bench.memory", workload, str(recording)]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def _write(street: Street, folder: Path) -> tuple[Path, Path, Path]:
    """Write the street with its four channels, its first alone, and that at YAMNet's rate."""
    frames, rate_hz = street.node.frames(), street.node.scene.sample_rate_hz
    array, mono, peer = folder / "array.wav", folder / "mono.wav", folder / "peer.wav"
    soundfile.write(array, frames, rate_hz, subtype="PCM_24")
    soundfile.write(mono, np.ascontiguousarray(frames[:, 0]), rate_hz, subtype="PCM_24")
    slow = resample_poly(frames[:, 0], yamnet.RATE_HZ, rate_hz)
    soundfile.write(peer, slow, yamnet.RATE_HZ, subtype="PCM_24")
    return array, mono, peer


def main() -> None:
    """Measure, print, write docs/evidence/bench.json."""
    street = Street.load()
    length_s = street.node.scene.duration_s
    mib = 2**20
    with tempfile.TemporaryDirectory() as folder, console.status("simulating a street") as status:
        array, mono, peer = _write(street, Path(folder))
        status.update("timing the pipeline on 4 channels")
        ours_s = _seconds("pipeline", array)
        status.update("timing the pipeline on 1 channel")
        ours_mono_s = _seconds("pipeline", mono)
        ours_bytes = _bytes("pipeline", array)
        claims = [
            Claim("pipeline, 4 ch × 48 kHz: real-time factor", ours_s / length_s, "s/s"),
            Claim("pipeline, 4 ch × 48 kHz: speed", length_s / ours_s, "× real time"),
            Claim("pipeline, 1 ch × 48 kHz: real-time factor", ours_mono_s / length_s, "s/s"),
            Claim("pipeline: peak resident memory", ours_bytes / mib, "MiB"),
        ]
        status.update("importing what the daemon needs")
        starts_s = [daemon.seconds_to_import() for _ in range(STARTS)]
        claims.append(Claim("daemon: time to import, median", statistics.median(starts_s), "s"))
        status.update("running the daemon on a virtual card")
        rate_hz = street.node.scene.sample_rate_hz
        resident = daemon.daemon_bytes(street.node.frames(), rate_hz, Path(folder))
        if resident is not None:
            name = f"daemon, 4 ch × 48 kHz: resident memory after {daemon.TIMES * length_s:.0f} s"
            holds = resident <= MOST_RESIDENT_MIB * mib
            bar = f"≤ {MOST_RESIDENT_MIB}"
            claims.append(Claim(name, resident / mib, "MiB", bar, holds))
        if yamnet.MODEL.exists():
            status.update("timing YAMNet on 1 channel")
            peer_s, peer_bytes = _seconds("yamnet", peer), _bytes("yamnet", peer)
            claims += [
                Claim("YAMNet, 1 ch, continuous: real-time factor", peer_s / length_s, "s/s"),
                Claim("YAMNet: peak resident memory", peer_bytes / mib, "MiB"),
                Claim(
                    "time, pipeline 4 ch over YAMNet 1 ch",
                    ours_s / peer_s,
                    "ratio",
                    "≤ 1",
                    ours_s <= peer_s,
                ),
                Claim("time, pipeline 1 ch over YAMNet 1 ch", ours_mono_s / peer_s, "ratio"),
                Claim("memory, pipeline over YAMNet", ours_bytes / peer_bytes, "ratio"),
            ]
        status.update("playing the street through the daemon in real time")
        latencies_s = [o.latency_s for o in play(street) if o.latency_s is not None]
    claims += [
        Claim("onset to publication, median", statistics.median(latencies_s), "s"),
        Claim("onset to publication, longest", max(latencies_s), "s"),
    ]
    publish(
        "bench",
        "make bench",
        claims,
        "One street of 25 s with seven sounds that trigger. The time from onset to publication is "
        "the wait for the sound after the last impulse of the event, not computation. YAMNet is "
        "given sound of its own rate, and need not resample it.",
    )


if __name__ == "__main__":
    main()
