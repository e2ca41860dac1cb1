"""How faults are brought about, on a bench of either kind: each gives what mends it."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import numpy as np

from tests.hil.bench import Bench, Frames, Part
from tests.hil.container import NODE
from tests.hil.fault import Mend
from tests.hil.network_proxy import Break
from tests.hil.virtual_bench import BROKER_NAME, NFT, RATE, STATE, VirtualBench

LEAKS_S = 60.0
"""In which a leak of 160 MB a second has ended its run."""
ENDS_S = 60
"""In which a program that takes all the memory has taken it, and is ended."""

AMID_S = 0.05
"""After its onset what is lost is in the block that a shot is in, or in the next."""

Strike = Callable[[Bench], Mend]
VirtualStrike = Callable[[VirtualBench], Mend]


def nothing() -> None:
    """Mend what has mended itself, or what the node mends."""


def take(part: Part) -> Strike:
    """Take a part away."""

    def strike(bench: Bench) -> Mend:
        switch = bench.switches[part]
        switch.off()
        return switch.on

    return strike


def hear(change: Callable[[Frames], None]) -> Strike:
    """Have the microphones hear what a change makes of the street."""

    def strike(bench: Bench) -> Mend:
        changed = bench.microphones.street.copy()
        change(changed)
        assert not np.array_equal(changed, bench.microphones.street)
        bench.microphones.play(changed)
        return lambda: bench.microphones.play(bench.microphones.street)

    return strike


def on_machine(broken: str, mended: str = "true") -> Strike:
    """Have the node's machine run a shell command, and another to mend it."""

    def strike(bench: Bench) -> Mend:
        bench.machine.run("sh", "-ec", broken)
        return lambda: bench.machine.run("sh", "-ec", mended) and None

    return strike


def signal_node(name: str) -> Strike:
    """Send the node's main process a signal."""
    return on_machine(f"systemctl kill --kill-whom=main --signal={name} {NODE}")


def silence(microphone: int) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        frames[:, microphone] = 0

    return change


def all_silent(frames: Frames) -> None:
    frames[:, :4] = 0


def constant(microphone: int, share: float) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        frames[:, microphone] = round(share * 2**31) & ~0xFF

    return change


def inverted(microphone: int) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        frames[:, microphone] = -np.maximum(frames[:, microphone], -(2**31) + 256)

    return change


def exchanged(one: int, other: int) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        frames[:, [one, other]] = frames[:, [other, one]]

    return change


def copied(source: int, target: int) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        frames[:, target] = frames[:, source]

    return change


def rotated(frames: Frames) -> None:
    frames[:] = np.roll(frames, 1, axis=1)


def clipped(microphone: int) -> Callable[[Frames], None]:
    """Turn the gain up until half of the samples are at full scale."""

    def change(frames: Frames) -> None:
        sound = frames[:, microphone].astype(np.float64)
        louder = sound * (2**31 / max(1.0, float(np.median(np.abs(sound)))))
        frames[:, microphone] = np.clip(louder, -(2**31), 2**31 - 256).astype(np.int32)

    return change


def humming(microphone: int, mains_hz: float = 50.0) -> Callable[[Frames], None]:
    """Add a ground loop 30 dB above the sound."""

    def change(frames: Frames) -> None:
        sound = frames[:, microphone].astype(np.float64)
        t_s = np.arange(len(sound)) / RATE
        level = 30.0 * float(np.median(np.abs(sound))) / 0.67
        hum = sum(np.sin(2 * np.pi * mains_hz * n * t_s) / n for n in (1, 2, 3, 5))
        frames[:, microphone] = np.clip(sound + level * hum, -(2**31), 2**31 - 256).astype(np.int32)

    return change


def hissing(microphone: int) -> Callable[[Frames], None]:
    """Add noise 40 dB above the sound."""

    def change(frames: Frames) -> None:
        sound = frames[:, microphone].astype(np.float64)
        hiss = np.random.default_rng(5).normal(0, 100 * float(np.median(np.abs(sound))), len(sound))
        frames[:, microphone] = np.clip(sound + hiss, -(2**31), 2**31 - 256).astype(np.int32)

    return change


def lose_frames(frames: int, *, amid_shot: bool = False) -> VirtualStrike:
    """Have the card lose frames, with no overrun and no flag; at once, or in a shot's own block."""

    def strike(bench: VirtualBench) -> Mend:
        if amid_shot:
            now_ns = time.time_ns()
            shot_ns = min(bench.onsets_utc_ns(now_ns, now_ns + 10 * 10**9))
            time.sleep((shot_ns - now_ns) / 1e9 + AMID_S)
        bench.card.skip(frames)
        return nothing

    return strike


def stall_card(bench: VirtualBench) -> Mend:
    """Stop the card's clock; the device is there, and delivers no more."""
    bench.card.stall()
    return nothing


def drift(ppm: float, usual_ppm: float) -> VirtualStrike:
    """Have the card's crystal run at another rate."""

    def strike(bench: VirtualBench) -> Mend:
        bench.card.drift(ppm)
        return lambda: bench.card.drift(usual_ppm)

    return strike


def receiver(**state: float | bool) -> VirtualStrike:
    """Have the receiver say something else."""

    def strike(bench: VirtualBench) -> Mend:
        before = {name: getattr(bench.receiver, name) for name in state}

        def put(values: dict[str, float | bool]) -> None:
            for name, value in values.items():
                setattr(bench.receiver, name, value)

        put(state)
        return lambda: put(before)

    return strike


def fill_disk(bench: Bench) -> Mend:
    """Fill the disk that the node keeps its state on."""
    filler = f"{STATE}/filler"
    bench.machine.run("sh", "-c", f"dd if=/dev/zero of={filler} bs=4k 2>/dev/null; sync")
    return lambda: bench.machine.run("rm", "-f", filler) and None


def spoil_outbox(bench: Bench) -> Mend:
    """Overwrite the head of the outbox, and end the node: it meets that when it starts."""
    spoil = f"dd if=/dev/urandom of={STATE}/outbox.sqlite3 bs=4096 count=3 conv=notrunc"
    bench.machine.run("sh", "-ec", f"systemctl stop {NODE}; {spoil}; systemctl start {NODE}")
    return nothing


def failing_disk(error: str, calls: str) -> VirtualStrike:
    """Have calls by which the node writes to its disk fail, as those of a broken one do."""

    def strike(bench: VirtualBench) -> Mend:
        command = ["strace", "-qq", "-f", "-o", "/dev/null", "-p", str(bench.machine.pid())]
        inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
        strace = subprocess.Popen([*command, *inject])

        def mend() -> None:
            ended = strace.poll()
            strace.terminate()
            strace.wait()
            assert ended is None, f"strace ended with {ended}, and no call failed"

        return mend

    return strike


def step_clock(seconds: float) -> VirtualStrike:
    """Step the host's clock as the node reads it."""

    def strike(bench: VirtualBench) -> Mend:
        bench.step_clock(seconds)
        return lambda: bench.step_clock(0.0)

    return strike


def load_processor(bench: Bench) -> Mend:
    """Have four programs a core, of a high priority, want the processor."""
    burn = "nice -n -15 sh -c 'while :; do :; done'"
    each = "for i in $(seq $((4 * $(nproc))))"
    bench.machine.run("sh", "-c", f"{each}; do {burn} & done >/dev/null 2>&1")
    return lambda: bench.machine.run("pkill", "-f", "while :; do", check=False) and None


def quota(percent: int, *, throttled: int = 0) -> Strike:
    """Let the node have so much of one processor; it has to be stopped so often at least by that.

    Where cgroups are of version 1, systemd may leave the processor's alone: then by hand.
    """
    top, pid = "/sys/fs/cgroup/cpu", f"$(systemctl show -P MainPID {NODE})"
    by_hand = (
        f"mkdir -p {top}/bound; echo {percent * 1000} >{top}/bound/cpu.cfs_quota_us;"
        f" echo {pid} >{top}/bound/cgroup.procs"
    )
    by_systemd = f"systemctl set-property --runtime {NODE} CPUQuota="
    old = f"[ -e {top}/cpu.cfs_quota_us ]"
    group = (
        f"if {old}; then group=cpu/bound; else group=$(systemctl show -P ControlGroup {NODE}); fi"
    )
    seen = "seen=$(sed -n 's/^nr_throttled //p' /sys/fs/cgroup/$group/cpu.stat)"
    freed = f"echo {pid} >{top}/cgroup.procs"
    return on_machine(
        f"if {old}; then {by_hand}; else {by_systemd}{percent}%; fi",
        f"{group}; {seen}; if {old}; then {freed}; else {by_systemd}; fi;"
        f" [ $seen -ge {throttled} ]",
    )


def take_memory(bench: Bench) -> Mend:
    """Have another program take all the memory there is, again as often as the kernel ends it."""
    ended = "test -e /run/greedy.ended"
    take = "while :; do tail /dev/zero; touch /run/greedy.ended; done"
    bounds = ("--property=OOMPolicy=continue", f"--property=RuntimeMaxSec={2 * ENDS_S}")
    bench.machine.run("systemd-run", "--quiet", "--unit=greedy", *bounds, "sh", "-c", take)

    def mend() -> None:
        bench.machine.systemctl("stop", "greedy")

    try:
        bench.machine.run(
            "sh", "-c", f"for i in $(seq {ENDS_S}); do {ended} && exit; sleep 1; done; false"
        )
    except BaseException:
        mend()
        raise
    return mend


def unscheduled(seconds: float) -> Strike:
    """Have the node not run for so long, and then go on."""
    kill = f"systemctl kill --kill-whom=main --signal={{}} {NODE}"
    return on_machine(f"{kill.format('STOP')}; sleep {seconds:g}; {kill.format('CONT')}")


def leak(bench: VirtualBench) -> Mend:
    """Have the next run keep 160 MB a second; the one after that is sound."""
    bench.leak()
    bench.machine.systemctl("restart", NODE)

    def ended() -> None:
        give_up_s = time.monotonic() + LEAKS_S
        while bench.machine.show(NODE, "NRestarts") == "0" and time.monotonic() < give_up_s:
            time.sleep(0.2)

    return ended


def without_name(bench: Bench) -> Mend:
    """Take the broker's name away, and the connection."""
    forget = f"cp /etc/hosts /etc/hosts.good; sed -i 's/{BROKER_NAME}//' /etc/hosts"
    bench.machine.run("sh", "-c", forget)
    bench.proxy.cut()
    bench.proxy.mend()
    return lambda: bench.machine.run("mv", "/etc/hosts.good", "/etc/hosts") and None


def certificate_expired(bench: VirtualBench) -> Mend:
    """Have the broker come back with a certificate that has ended."""
    return _certified(bench, expired=True)


def _certified(bench: VirtualBench, *, expired: bool) -> Mend:
    bench.broker.stop()
    bench.fleet.certify_broker(expired=expired)
    bench.broker.start()
    return nothing if not expired else lambda: _certified(bench, expired=False)()


def revoked(bench: VirtualBench) -> Mend:
    """Have the broker know that the node's certificate was revoked."""
    good = bench.fleet.crl_file.read_bytes()
    bench.broker.stop()
    bench.fleet.revoke_node()
    bench.broker.start()

    def mend() -> None:
        bench.broker.stop()
        bench.fleet.crl_file.write_bytes(good)
        bench.broker.start()

    return mend


def breaking(bench: Bench) -> Mend:
    """Have the network break the connection again and again, now so, now so."""
    ended = threading.Event()
    rng = random.Random(3)

    def work() -> None:
        while not ended.wait(0.7):
            how: Break = rng.choice(("reset", "half_close"))
            bench.proxy.break_after(rng.randrange(1, 3000), how)

    thread = threading.Thread(target=work)
    thread.start()

    def mend() -> None:
        ended.set()
        thread.join()
        bench.proxy.mend()

    return mend


def namesake(bench: VirtualBench) -> Mend:
    """Have another machine come with the node's certificate, and so its name, again and again."""
    other = bench.namesake()
    other.start()
    return other.stop


def cut(bench: Bench) -> Mend:
    """Cut the network to the broker."""
    bench.proxy.cut()
    return bench.proxy.mend


def black_hole(bench: Bench) -> Mend:
    """Have the network swallow everything, and end nothing."""
    bench.proxy.stall()
    return bench.proxy.mend


def deaf_broker(bench: Bench) -> Mend:
    """Have no answer of the broker's come through."""
    bench.proxy.deafen("down")
    return bench.proxy.mend


def slow(bytes_per_s: float) -> Strike:
    """Have the network carry so little."""

    def strike(bench: Bench) -> Mend:
        before = bench.proxy.held_back
        bench.proxy.slow(bytes_per_s)

        def mend() -> None:
            bench.proxy.mend()
            assert bench.proxy.held_back > before, "nothing had to wait"

        return mend

    return strike


def lossy(bench: VirtualBench) -> Mend:
    """Have the network lose three packets in ten, both ways."""
    lose = "add table inet bench; add chain inet bench lose { type filter hook input priority 0; }"
    rules = "; ".join(
        f"add rule inet bench lose tcp {side} {bench.proxy.port} numgen random mod 10 < 3 "
        "counter drop"
        for side in ("dport", "sport")
    )
    subprocess.run([NFT, f"{lose}; {rules}"], check=True)

    def mend() -> None:
        listed = subprocess.run(
            [NFT, "list table inet bench"], check=True, capture_output=True, text=True
        ).stdout
        subprocess.run([NFT, "delete table inet bench"], check=True)
        dropped = [int(packets) for packets in re.findall(r"counter packets (\d+)", listed)]
        assert len(dropped) == 2, listed
        assert all(dropped), f"no packet was lost: {listed}"

    return mend


def hang_broker(bench: Bench) -> Mend:
    """Have the broker hang: connections stay open, and nothing is answered."""
    pid = bench.broker.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def stop_broker(bench: Bench) -> Mend:
    """Stop the broker in order."""
    bench.broker.stop()
    return _nobody_listens(bench)


def kill_broker(bench: Bench) -> Mend:
    """Kill the broker."""
    bench.broker.kill()
    return _nobody_listens(bench)


def _nobody_listens(bench: Bench) -> Mend:
    """Have the proxy not stand where there is no broker: connections are refused, as without it."""
    bench.proxy.cut()

    def mend() -> None:
        bench.broker.start()
        bench.proxy.mend()

    return mend


def chrony_pulse_off(bench: VirtualBench) -> Mend:
    """Take the pulse from chrony alone."""
    bench.chrony.pulse = False

    def mend() -> None:
        bench.chrony.pulse = True

    return mend
