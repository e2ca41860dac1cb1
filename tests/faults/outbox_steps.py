"""Work with an outbox as a node does, and tell what is durable: to be killed or failed at any step.

`outbox_steps FOLDER FIRST`: append, acknowledge, append beyond the bound; what cannot be done is
tried again. It tells by writev(2), which is neither counted nor failed.
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from node.deliver.outbox import Link, Outbox, Rendered
from node.errors import OutboxError

BOUND_BYTES: Final = 2**20
TRIES: Final = 4
APPENDS: Final = 8


def tell(*words: object) -> None:
    os.writev(1, [json.dumps(words).encode() + b"\n"])


def render(link: Link) -> Rendered:
    """Make a message that says where it stands, as long as a detection."""
    payload = json.dumps({"seq": link.seq, "before": link.prev_digest, "fill": "x" * 1300})
    return Rendered(payload.encode(), digest_of(payload.encode()))


def digest_of(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def again(step: Callable[[], object]) -> object:
    for _ in range(TRIES):
        try:
            return step()
        except OutboxError as error:
            tell("failed", str(error))
    raise SystemExit(3)


def main() -> None:
    logging.disable(logging.WARNING)  # a line of the log is no write of the outbox
    folder, first = Path(sys.argv[1]), sys.argv[2]
    outbox = again(lambda: Outbox(folder / "outbox.sqlite3", BOUND_BYTES))
    assert isinstance(outbox, Outbox)
    tell("open", outbox.last_seq)
    for number in range(APPENDS):
        name = f"{first}-{number}"
        appended = again(lambda name=name, n=number: outbox.append(name, 0, n, render))  # type: ignore[misc]
        tell("durable", appended.seq)  # type: ignore[attr-defined]
        if number % 3 == 2:
            seqs = [row.seq for row in outbox.pending(2)]
            tell("acknowledging", seqs)
            again(lambda seqs=seqs: outbox.acknowledge(seqs))  # type: ignore[misc]
            tell("acknowledged", seqs)
    outbox.close()


if __name__ == "__main__":
    main()
