"""Where samples come from: a sound device, a recording, or memory; and how the microphones stand.

`PortAudioSource` and `list_input_devices` live in `node.capture.portaudio` and
`node.capture.devices`: importing them needs PortAudio, which a replay does not.
"""

from node.capture.geometry import ArrayGeometry, built_in_arrays, load_geometry, make_geometry
from node.capture.identity import GeodeticPlace, LocalPlace, RecordingIdentity
from node.capture.recording import RecordingSource
from node.capture.simulated import SimulatedSource

__all__ = [
    "ArrayGeometry",
    "GeodeticPlace",
    "LocalPlace",
    "RecordingIdentity",
    "RecordingSource",
    "SimulatedSource",
    "built_in_arrays",
    "load_geometry",
    "make_geometry",
]
