"""On the node: get certificates from the fleet, and renew them."""
