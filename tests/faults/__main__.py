"""`make faults`: every fault that we know of, and what arrives all the same."""

from typing import Final

from tests.parts import run

PARTS: Final = (
    "delivery", "tls", "kills", "writes", "clock", "disk", "beyond", "drain", "verify", "privacy",
    "fuzz",
)  # fmt: skip
NOTE: Final = (
    "The daemon as shipped, with its model, its outbox on disk, its key and its sender, in a "
    "process of its own, hears shots of the simulator thirty times faster than real time (eight "
    "times under libfaketime) from a card that does not wait. The broker is a real Mosquitto, "
    "under mutual TLS as provisioning/broker sets it up, the network a proxy on loopback. "
    "Received is what a subscriber that the broker remembers has got, de-duplicated by event_id "
    "and revision. Keep-alive is 5 s and the longest pause before another try 1 s, so that faults "
    "pass quickly. A disk that lies about what it has saved is not among the faults."
)

if __name__ == "__main__":
    run("faults", __doc__, PARTS, NOTE)
