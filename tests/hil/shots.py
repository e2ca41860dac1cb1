"""A street of shots for a whole node to hear, and what a subscriber makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from node.capture import built_in_arrays
from node.messages import Detection
from node.network import Subscription
from node.simulate.render import RenderedNode, render
from node.simulate.scene import parse
from node.types import NS_PER_S
from node.utc import parse_utc_ns

SHOT_EVERY_S = 3.0
RIGHT_NS = 1_000_000


def street(seconds: float) -> RenderedNode:
    """Build a quiet street with a shot every three seconds, 80 m away."""
    sources = "\n".join(
        f'[[sources]]\nkind = "muzzle_blast"\ncalibre = "9mm"\ntime_s = {2.0 + SHOT_EVERY_S * i}\n'
        "x_m = 40.0\ny_m = 70.0\n"
        for i in range(int((seconds - 2.0) / SHOT_EVERY_S))
    )
    scene = parse(
        f'name = "shots"\nduration_s = {seconds}\nseed = 3\nstart_utc = 2026-01-01T00:00:00Z\n'
        "[street]\nnoise_db_a = 50.0\n" + sources + '[[nodes]]\nid = "roof-1"\nx_m = 0.0\n'
        'y_m = 0.0\nz_m = 6.0\narray = "tetrahedron_200mm"\n'
    )
    return render(scene, built_in_arrays()).nodes[0]


def detections(words: Subscription, deadline_s: float, wanted: int) -> list[Detection]:
    """Wait for so many detections."""
    heard: list[Detection] = []
    for word in words.within(deadline_s):
        if isinstance(word.message, Detection):
            heard.append(word.message)
            if len(heard) == wanted:
                break
    return heard


def onset_errors_ns(heard: Sequence[Detection], onsets_utc_ns: Sequence[float]) -> list[float]:
    """Give by how much each onset is wrong, against the nearest true one."""
    return [
        min((parse_utc_ns(d.onset_utc) - onset for onset in onsets_utc_ns), key=abs) for d in heard
    ]


def assert_on_time(heard: Sequence[Detection], errors_ns: Sequence[float]) -> None:
    """Say that onsets are right to a millisecond.

    Of a shot that began among lost frames the node hears what comes after them.
    """
    for detection, error_ns in zip(heard, errors_ns, strict=True):
        audio = detection.audio
        lost_ns = audio.lost_samples * NS_PER_S // audio.sample_rate_hz
        said = f"{detection.onset_utc}: {error_ns / 1e6:+.3f} ms, {audio.lost_samples} frames lost"
        assert -RIGHT_NS <= error_ns <= RIGHT_NS + lost_ns, said
