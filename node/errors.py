"""Every error that a user can cause or mend; each message says what, where, and what to do next.

The command line prints the message on one line and exits with 2; the daemon puts it among the
reasons of its status. Anything else that escapes is a defect of ours and keeps its traceback.
"""


class GunfireNodeError(Exception):
    """The base of every error that this package raises on purpose."""


class SettingsError(GunfireNodeError, ValueError):
    """A setting is unknown, mistyped, out of its range, or its file cannot be read."""


class RecordingError(GunfireNodeError, ValueError):
    """A recording cannot be read, or holds nothing that could be judged."""


class DeviceError(GunfireNodeError, OSError):
    """A sound device is missing, refuses what it was asked for, or has gone silent."""


class ModelError(GunfireNodeError, ValueError):
    """The classifier's model file is unreadable or has another shape than ours."""


class SceneError(GunfireNodeError, ValueError):
    """A scene, an array geometry or a list of nodes is not what its format says."""


class CalibrationError(GunfireNodeError, ValueError):
    """Sounds do not calibrate an array, or its file cannot be written."""


class IdentityError(GunfireNodeError, ValueError):
    """The node's signing key or certificate cannot be used, or a verifier's cannot be read."""


class OutboxError(GunfireNodeError, OSError):
    """A detection could not be made durable (disk full, file corrupt, no permission)."""


class BrokerError(GunfireNodeError, OSError):
    """A broker's address is wrong, or a broker that a command needs does not answer."""


class BoardError(GunfireNodeError, OSError):
    """The pins of light, button or tamper switch cannot be used."""


class StatusError(GunfireNodeError, OSError):
    """No node runs on this machine, or what it says of itself cannot be read."""


class ProvisioningError(GunfireNodeError, ValueError):
    """A card, a first-boot file, an enrolment or an update is not as it must be."""
