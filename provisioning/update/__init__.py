"""Signed releases: put up by the owner, pulled, tried and kept or taken back by a node."""
