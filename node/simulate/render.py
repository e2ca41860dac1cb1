"""Makes a scene heard: for each node the PCM that its converter would deliver, and the truth.

The end of the simulation: in comes a `Scene`, out go frames for the pipeline, or files that
`gunfire-node replay` reads. Sounds are worked out one by one around their arrival and mixed into
the street's noise hop by hop, so that memory does not grow with the scene.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from node.errors import SceneError
from node.simulate.cast import Chance, Cue, chance, cues, walls
from node.simulate.echoes import Wall
from node.simulate.hearing import hear, onset_samples
from node.simulate.microphone import Microphone
from node.simulate.noise import HOP_FRAMES, StreetNoise
from node.simulate.pps import PulseChannel
from node.simulate.scene import Scene, SceneNode
from node.simulate.truth import (
    Truth,
    TruthArrival,
    TruthNode,
    TruthSource,
    utc_ns_of,
)
from node.types import NS_PER_S
from node.utc import utc_text

Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]

Progress = Callable[[float], None]


@dataclass(frozen=True)
class RenderedNode:
    """A node of a scene, ready to be heard; nothing is worked out before it is asked for.

    Attributes
    ----------
    scene, node
        Which.
    microphones_m
        Where its microphones stand in the scene, shape [channels, 3], in m.
    walls, cues
        What its sound is made of.
    """

    scene: Scene
    node: SceneNode
    microphones_m: Float64Array
    walls: tuple[Wall, ...]
    cues: tuple[Cue, ...]

    @property
    def channels(self) -> int:
        """Microphones, and the pulse's channel after them if there is one."""
        return len(self.microphones_m) + self.node.pps

    @property
    def true_rate_hz(self) -> float:
        """What the converter's crystal makes of the nominal rate."""
        return self.scene.sample_rate_hz * (1 + self.node.clock_ppm * 1e-6)

    @property
    def frame_count(self) -> int:
        """Frames that the scene lasts."""
        return round(self.scene.duration_s * self.scene.sample_rate_hz)

    def arrivals(self) -> tuple[TruthArrival, ...]:
        """Say which sounds reach the node directly while it records, by order of arrival."""
        start_ns = utc_ns_of(self.scene.start_utc)
        place_m = np.array([self.node.x_m, self.node.y_m, self.node.z_m])
        heard = []
        for i, cue in enumerate(self.cues):
            sample = float(self._onset_samples(cue)[0])
            if sample >= self.frame_count:
                continue
            east, north, up = cue.place_m - place_m
            after_ns = round(sample * NS_PER_S / self.true_rate_hz)
            heard.append(
                TruthArrival(
                    source=i,
                    utc=utc_text(start_ns + after_ns),
                    sample=sample,
                    azimuth_deg=float(np.rad2deg(np.arctan2(east, north)) % 360),
                    elevation_deg=float(np.rad2deg(np.arctan2(up, np.hypot(east, north)))),
                )
            )
        return tuple(sorted(heard, key=lambda arrival: arrival.sample))

    def hops(self) -> Iterator[Int32Array]:
        """Yield the recording in successive stretches of int32 frames, [n, channels].

        Samples stand in the upper bits, as `node.types.Block` has them.
        """
        scene, index = self.scene, self.scene.nodes.index(self.node)
        street = StreetNoise(
            self.microphones_m,
            sample_rate_hz=scene.sample_rate_hz,
            level_db_a=scene.street.noise_db_a,
            vehicles_per_minute=scene.street.vehicles_per_minute,
            duration_s=scene.duration_s,
            sound_speed_m_s=scene.atmosphere.sound_speed_m_s,
            seed=chance(scene, Chance.NOISE, index),
        )
        microphone = Microphone(
            len(self.microphones_m),
            sample_rate_hz=scene.sample_rate_hz,
            full_scale_db_spl=self.node.full_scale_db_spl,
            bits=self.node.bits,
            highpass_hz=self.node.highpass_hz,
            self_noise_db_spl=self.node.self_noise_db_spl,
            rng=np.random.default_rng(chance(scene, Chance.SELF_NOISE, index)),
        )
        pulses = PulseChannel(
            utc_ns_of(scene.start_utc),
            self.true_rate_hz,
            self.node.bits,
            np.random.default_rng(chance(scene, Chance.PULSE, index)),
        )
        waiting = sorted((self._first_sample(cue), i) for i, cue in enumerate(self.cues))
        sounding: list[tuple[int, Float64Array]] = []
        for hop, first in enumerate(range(0, self.frame_count, HOP_FRAMES)):
            end = first + HOP_FRAMES
            while waiting and waiting[0][0] < end:
                at, i = waiting.pop(0)
                sounding.append((at, self.hear(i)))
            pressure = street.hop(hop)
            for at, wave in sounding:
                begin, stop = max(at, first), min(at + len(wave), end)
                pressure[begin - first : stop - first] += wave[begin - at : stop - at]
            sounding = [(at, wave) for at, wave in sounding if at + len(wave) > end]
            frames = microphone.record(pressure)
            if self.node.pps:
                frames = np.column_stack((frames, pulses.hop(first, len(frames))))
            yield frames[: self.frame_count - first]

    def frames(self) -> Int32Array:
        """Give the whole recording, [frame_count, channels]."""
        return np.concatenate(list(self.hops()))

    def hear(self, cue_index: int) -> Float64Array:
        """Work out one sound at the microphones, with its echoes.

        Returns
        -------
        Pressure in Pa, shape [n, channels], from the whole sample at or before the first arrival
        at any microphone.
        """
        index = self.scene.nodes.index(self.node)
        return hear(
            self.scene,
            self.cues[cue_index],
            self.microphones_m,
            self.walls,
            np.random.default_rng(chance(self.scene, Chance.TAIL, index, cue_index)),
            self.true_rate_hz,
        )

    def _first_sample(self, cue: Cue) -> int:
        return int(self._onset_samples(cue).min())

    def _onset_samples(self, cue: Cue) -> Float64Array:
        place_m, microphones_m = cue.place_m, self.microphones_m
        return onset_samples(self.scene, cue, place_m, microphones_m, self.true_rate_hz)


@dataclass(frozen=True)
class RenderedScene:
    """A scene with all that was left open settled, its nodes ready to be heard.

    Attributes
    ----------
    scene
        What was asked for.
    nodes
        In the scene's order.
    truth
        What happened.
    """

    scene: Scene
    nodes: tuple[RenderedNode, ...]
    truth: Truth


def render(scene: Scene, arrays: Mapping[str, npt.ArrayLike]) -> RenderedScene:
    """Settle a scene.

    Parameters
    ----------
    scene
        The scene.
    arrays
        Array geometries by name: microphone positions, shape [channels, 3], in m.

    Raises
    ------
    SceneError
        If a node names an array that `arrays` lacks.
    """
    settled, around = cues(scene), walls(scene)
    nodes = tuple(
        RenderedNode(scene, node, _microphones_m(node, arrays), around, settled)
        for node in scene.nodes
    )
    start_ns = utc_ns_of(scene.start_utc)
    sources = tuple(
        TruthSource(
            kind=cue.sound.kind,
            utc=utc_text(start_ns + round(cue.time_s * NS_PER_S)),
            x_m=float(cue.place_m[0]),
            y_m=float(cue.place_m[1]),
            z_m=float(cue.place_m[2]),
            label=cue.sound.label,
        )
        for cue in settled
    )
    heard = tuple(TruthNode(node_id=node.node.id, arrivals=node.arrivals()) for node in nodes)
    return RenderedScene(scene, nodes, Truth(sources=sources, nodes=heard))


def write(rendered: RenderedScene, directory: Path | str, progress: Progress | None = None) -> None:
    """Write recordings, truth.json and NODES.toml; the same scene gives the same bytes.

    Each node gets `<id>.wav` and beside it `<id>.json`, of the form that `gunfire-node replay`
    reads.

    Parameters
    ----------
    rendered
        The scene.
    directory
        Where to; made if it is not there.
    progress
        Told the share done, 0 to 1, as it goes.

    Raises
    ------
    SceneError
        If something cannot be written.
    """
    directory = Path(directory)
    done, total = 0, sum(node.frame_count for node in rendered.nodes)
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for node in rendered.nodes:
            path = directory / f"{node.node.id}.wav"
            with soundfile.SoundFile(
                path,
                "w",
                samplerate=rendered.scene.sample_rate_hz,
                channels=node.channels,
                subtype=f"PCM_{node.node.bits}",
            ) as file:
                for frames in node.hops():
                    file.write(frames)
                    done += len(frames)
                    if progress:
                        progress(done / total)
            path = path.with_suffix(".json")
            path.write_text(_sidecar(node), encoding="utf-8")
        path = directory / "truth.json"
        path.write_text(rendered.truth.model_dump_json(indent=1) + "\n", encoding="utf-8")
        path = directory / "NODES.toml"
        path.write_text(_nodes_toml(rendered.scene), encoding="utf-8")
    except OSError as error:
        raise SceneError(f"{path}: cannot be written: {error.strerror}") from None
    except soundfile.LibsndfileError as error:
        raise SceneError(f"{path}: cannot be written: {error.error_string}") from None


def _microphones_m(node: SceneNode, arrays: Mapping[str, npt.ArrayLike]) -> Float64Array:
    if node.array is not None and node.array not in arrays:
        known = ", ".join(sorted(arrays)) or "none"
        raise SceneError(f"nodes: {node.id}: array {node.array!r} is not known; known are {known}")
    local = np.asarray(
        node.microphones_m if node.array is None else arrays[node.array], dtype=np.float64
    )
    heading = np.deg2rad(node.heading_deg)
    turn = np.array(
        [
            [np.cos(heading), np.sin(heading), 0],
            [-np.sin(heading), np.cos(heading), 0],
            [0, 0, 1],
        ]
    )
    return np.asarray(np.array([node.x_m, node.y_m, node.z_m]) + local @ turn.T)


def _sidecar(rendered: RenderedNode) -> str:
    scene, node, microphones = rendered.scene, rendered.node, len(rendered.microphones_m)
    sidecar: dict[str, object] = {
        "serial_number": node.id,
        "timestamp": utc_text(utc_ns_of(scene.start_utc)),
        "location": {"x": node.x_m, "y": node.y_m, "z": node.z_m, "sigma_m": node.sigma_m},
        "heading_deg": node.heading_deg,
        "full_scale_db_spl": node.full_scale_db_spl,
        "description": f"simulated scene {scene.name!r}",
    }
    if node.array is not None:
        sidecar["array"] = node.array
    else:
        sidecar["microphones_m"] = node.microphones_m
    if node.pps:
        sidecar["pps_channel"] = microphones
    return json.dumps(sidecar, indent=1) + "\n"


def _nodes_toml(scene: Scene) -> str:
    return "\n".join(
        f'[[node]]\nid = "{node.id}"\nx_m = {node.x_m!r}\ny_m = {node.y_m!r}\nz_m = {node.z_m!r}\n'
        f"sigma_m = {node.sigma_m!r}\n"
        for node in scene.nodes
    )
