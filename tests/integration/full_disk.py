"""Fill the disk under an outbox, find out what it says, make room, and go on. Prints JSON.

`full_disk.py FOLDER`: FOLDER is on a small file system of its own.
"""

import json
import sys
from pathlib import Path

from node.deliver import Link, Outbox, Rendered
from node.errors import OutboxError


def message(seq: int) -> bytes:
    return b"%d " % seq + b"x" * 1500


def render(link: Link) -> Rendered:
    return Rendered(message(link.seq))


def fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return


def main() -> None:
    folder = Path(sys.argv[1])
    filler = folder / "filler"
    path = folder / "outbox.sqlite3"
    outbox = Outbox(path, 2**22)
    before = [outbox.append(f"before-{n}", 0, n, render).seq for n in range(5)]
    fill(filler)
    errors = []
    while len(errors) < 3:  # its own log has some room left at first
        try:
            before.append(outbox.append(f"more-{len(before)}", 0, 100, render).seq)
        except OutboxError as error:
            errors.append(str(error))
    kept = sorted(row.seq for row in outbox.pending())

    filler.unlink()
    after_room = outbox.append("after", 0, 200, render).seq
    outbox.close()
    again = Outbox(path, 2**22)
    seqs = sorted(row.seq for row in again.pending())
    intact = all(row.payload == message(row.seq) for row in again.pending())
    again.close()

    fill(filler)
    new_error = ""
    with Outbox(folder / "new" / "outbox.sqlite3", 2**20) as new:
        try:
            new.append("full", 0, 0, render)
        except OutboxError as error:
            new_error = str(error)
        filler.unlink()
        new_seq = new.append("room", 0, 0, render).seq
    print(
        json.dumps(
            {
                "before": before,
                "errors": errors,
                "kept": kept,
                "after_room": after_room,
                "seqs": seqs,
                "intact": intact,
                "new_error": new_error,
                "new_seq": new_seq,
            }
        )
    )


if __name__ == "__main__":
    main()
