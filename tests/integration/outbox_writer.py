"""Append to an outbox until killed, and say on stdout what is durable. `outbox_writer.py FILE`."""

import itertools
import sys
from pathlib import Path

from node.deliver import Outbox, Rendered


def main() -> None:
    outbox = Outbox(Path(sys.argv[1]), 2**22)
    print("open", outbox.last_seq, flush=True)
    for count in itertools.count():
        name = f"{outbox.last_seq + 1}"
        appended = outbox.append(
            name, 0, count, lambda link: Rendered(b"%d:" % link.seq + b"y" * 1500)
        )
        print(appended.seq, flush=True)


if __name__ == "__main__":
    main()
