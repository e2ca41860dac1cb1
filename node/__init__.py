"""The open gunfire sensor: hear a shot, judge it, time it, and publish it as a measurement."""

from importlib.metadata import version

__version__ = version("gunfire-node")
