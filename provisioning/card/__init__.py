"""The laptop: make, check and write what a node starts from; `gunfire-card`."""
