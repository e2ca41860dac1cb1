"""What a Prometheus may read of a node, where the settings ask for it.

The latest record of node/vitals.py comes in; the library's own server gives it out. It is imported
only then: it takes 11 MB.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from node.errors import BoardError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# A reader that neither asks nor takes for so long is left.
READER_S: Final = 5.0
VERDICTS: Final = {"pass": 0, "warn": 1, "fail": 2}
Record = Mapping[str, Any]


@contextmanager
def metrics_server(host_port: str, latest: Callable[[], Record]) -> Iterator[None]:
    """Serve /metrics until the `with` is left.

    Parameters
    ----------
    host_port
        Where to listen.
    latest
        Gives the latest record; an empty one before there is any.

    Raises
    ------
    BoardError
        That place cannot be listened at.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    host, _, port = host_port.rpartition(":")
    registry = CollectorRegistry()
    registry.register(_Collector(latest))
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, UnicodeError) as error:  # a name may be none that DNS could hold
        advice = "choose another port, or an address of this machine"
        if isinstance(error, OSError) and error.errno == errno.EPERM:  # EACCES is the port's
            advice = f"let the unit listen: SocketBindAllow=tcp:{port} by systemctl edit"
        reason = getattr(error, "strerror", None) or error
        raise BoardError(
            f"no metrics at health.metrics = {host_port}: {reason}; {advice}"
        ) from error
    server.RequestHandlerClass = _hasty(server.RequestHandlerClass)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _hasty(handler: Any) -> Any:
    """Give the library's handler, which has a thread for each reader, an end of its patience."""

    class Hasty(handler):  # type: ignore[misc]  # of a class that is only known here
        timeout = READER_S

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

    return Hasty


class _Collector:
    def __init__(self, latest: Callable[[], Record]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        """Give the latest record as metrics; called by the library for each reader."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        record = self._latest()
        if not record:
            return
        for name, about, value in _gauges(record):
            yield GaugeMetricFamily(f"gunfire_{name}", about, value=value)
        for name, about, value in _counters(record):
            yield CounterMetricFamily(f"gunfire_{name}", about, value=value)
        checks = GaugeMetricFamily(
            "gunfire_check", "Verdict of a check: 0 pass, 1 warn, 2 fail.", labels=["name"]
        )
        for check in record["checks"]:
            checks.add_metric([check["name"]], VERDICTS[check["verdict"]])
        yield checks
        levels = GaugeMetricFamily(
            "gunfire_microphone_rms_dbfs", "Level of a microphone.", labels=["channel"]
        )
        for microphone in record["microphones"]:
            if microphone["rms_dbfs"] is not None:
                levels.add_metric([str(microphone["channel"])], microphone["rms_dbfs"])
        yield levels


def _gauges(record: Record) -> Iterator[tuple[str, str, float]]:
    yield "hears", "Whether audio arrives.", float(record["hears"])
    yield "uptime_seconds", "Time since this run began.", record["uptime_s"]
    yield "clock_sigma_seconds", "Standard error of the clock.", record["clock"]["sigma_s"]
    yield "outbox_depth", "Detections not acknowledged yet.", record["outbox"]["depth"]
    yield "broker_connected", "Whether the broker is reached.", record["broker"]["connected"]


def _counters(record: Record) -> Iterator[tuple[str, str, float]]:
    yield "lost_samples", "Frames lost in this run.", record["lost_samples"]
    yield "outbox_dropped", "Detections dropped, for life.", record["outbox"]["dropped"]
    yield "acknowledged", "Messages acknowledged in this run.", record["broker"]["acknowledged"]
