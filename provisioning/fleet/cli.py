"""`gunfire-fleet`."""


def main() -> None:
    """Run the command line."""
    raise NotImplementedError
