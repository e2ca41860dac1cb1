"""`gunfire-card`."""


def main() -> None:
    """Run the command line."""
    raise NotImplementedError
