"""Beside the broker: who belongs to the fleet; `gunfire-fleet`."""
