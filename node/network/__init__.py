"""The subscriber's side: reads what nodes publish."""

from node.network.private_broker import PrivateBroker
from node.network.subscribe import Subscription, Word, subscribe

__all__ = ["PrivateBroker", "Subscription", "Word", "subscribe"]
