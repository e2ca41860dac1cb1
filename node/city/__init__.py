"""A city by itself: ten simulated nodes, each a whole daemon, and what the network makes of them.

Real are the daemons (each in a process of its own, with key, certificate, outbox and MQTT session),
a Mosquitto of our own on loopback, the service that locates, and the subscriber; simulated are the
streets, which play in real time where the sound cards would be. One node lies: it has to be found.
"""

from node.city.performance import Played, play
from node.city.streets import City, Lie
from node.city.verdict import Outcome, Verdict, judge

__all__ = ["City", "Lie", "Outcome", "Played", "Verdict", "judge", "play"]
