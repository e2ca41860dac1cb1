"""`make units`: the node under its service manager, and its self-test with planted faults."""
