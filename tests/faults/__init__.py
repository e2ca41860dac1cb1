"""`make faults`: what arrives, whatever breaks on the way."""
