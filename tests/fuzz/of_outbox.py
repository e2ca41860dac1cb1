"""The outbox on a disk that spoils things: its database, log and ceiling, byte by byte and by row.

An input is a list of spoilings in JSON; the outbox is one of five messages, closed, or cut off by a
loss of power with all of it still in the log.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from node.deliver.outbox import MIN_BYTES, Link, Outbox, Rendered
from node.errors import OutboxError
from node.messages import with_transport
from tests.evidence import ROOT
from tests.fuzz.engine import Target, WrongError

_NAME: Final = "outbox.sqlite3"
_FILES: Final = (_NAME, f"{_NAME}-wal", f"{_NAME}.seq")
_WAITING: Final = 5
_EXAMPLE: Final = json.loads((ROOT / "tests" / "contract" / "detection.json").read_bytes())
_EVENT: Final = "00000000-0000-5000-8000-{:012d}"
_TRIES: Final = 4
"""After so many, an outbox that only needed to be set aside must work."""

_REFUSED: Final = "is not a regular file"

_VALUES: Final = (
    *("NULL", "''", "'abc'", "-1", "0", "1", "2", "1.5", "1e300", "9223372036854775807", "x'ff'"),
    *("CAST(x'ff' AS TEXT)", "'[1]'", "'{'", "zeroblob(40)", "'null'", "-9223372036854775808"),
)
_COLUMNS: Final = ("seq", "event_id", "revision", "onset_utc_ns", "payload", "refusal")
_STATEMENTS: Final = (
    "DELETE FROM counter",
    "DELETE FROM detection",
    "DELETE FROM chain",
    "DROP TABLE counter",
    "DROP TABLE chain",
    "DROP TABLE gap",
    "DROP INDEX to_send",
    "DROP TABLE detection",
    "PRAGMA user_version = 0",
    "PRAGMA user_version = 1",
    "PRAGMA user_version = 77",
    "UPDATE counter SET value = {value}",
    "UPDATE chain SET digest = {value}",
    "UPDATE counter SET name = {value}",
    "INSERT INTO gap VALUES ({value}, {value}, {other}, 'lost')",
    "INSERT INTO gap VALUES (2, {value}, 1, {other})",
    "UPDATE detection SET {column} = {value} WHERE seq = {seq}",
    "UPDATE detection SET {column} = {value} WHERE seq = {seq}",
    "UPDATE detection SET {column} = {value}",
    "PRAGMA ignore_check_constraints = 1",
)


@cache
def _whole() -> dict[str, dict[str, bytes]]:
    """Give the files of a sound outbox, closed and cut off."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _NAME
        outbox = Outbox(path, MIN_BYTES)
        for number in range(1, _WAITING + 1):
            _append(outbox, number)
        cut = {name: _bytes(Path(folder) / name) for name in _FILES}
        outbox.close()
        return {"cut": cut, "closed": {name: _bytes(Path(folder) / name) for name in _FILES}}


def _bytes(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def _append(outbox: Outbox, number: int) -> int:
    def render(link: Link) -> Rendered:
        payload = json.dumps(_EXAMPLE | {"seq": link.seq}).encode()
        return Rendered(payload, f"{link.seq:064x}")

    return outbox.append(_EVENT.format(number), 0, 10**18 + number, render).seq


def _corpus() -> list[bytes]:
    whole: list[Any] = [["closed"], ["cut"], ["closed", ["sql", "DELETE FROM detection"]]]
    old = ["closed", ["sql", "PRAGMA user_version = 1"], ["sql", "DROP TABLE chain"]]
    old += [["sql", "DROP TABLE gap"], ["sql", "ALTER TABLE detection DROP waits_since_utc_ns"]]
    return [json.dumps(one).encode() for one in (*whole, old)]


def _make(rng: Random, _corpus: list[bytes]) -> bytes:
    state = rng.choice(("closed", "cut"))
    spoilings: list[Any] = [state]
    for _ in range(rng.choice((1, 1, 2, 4))):
        pick = rng.random()
        name = rng.choice([n for n in _FILES if _whole()[state][n]])
        size = len(_whole()[state][name])
        at = rng.choice((rng.randrange(size), rng.randrange(min(size, 200))))
        if pick < 0.4:
            spoilings.append(["byte", name, at, rng.randrange(256)])
        elif pick < 0.5:
            spoilings.append(["cut", name, at])
        elif pick < 0.6:
            spoilings.append(["fill", name, at, rng.choice((16, 512, 4096)), rng.choice((0, 255))])
        elif pick < 0.65:
            text = rng.choice(
                ("", "7 7\n", "7 8\n", "9" * 18 + " " + "9" * 18 + "\n", "é", "0 0\n")
            )
            spoilings.append(["text", f"{_NAME}.seq", text])
        elif pick < 0.68:
            spoilings.append(["remove", name])
        else:
            spoilings.append(
                [
                    "sql",
                    rng.choice(_STATEMENTS).format(
                        value=rng.choice(_VALUES),
                        other=rng.choice(_VALUES),
                        column=rng.choice(_COLUMNS),
                        seq=rng.randrange(1, _WAITING + 1),
                    ),
                ]
            )
    return json.dumps(spoilings).encode()


def _check(data: bytes, folder: Path) -> bool:
    path = folder / "box" / _NAME
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    state, *spoilings = json.loads(data)
    for name, content in _whole()[state].items():
        if content:
            (path.parent / name).write_bytes(content)
    for spoiling in spoilings:
        _spoil(path.parent, *spoiling)
    ceiling = _bytes(path.parent / f"{_NAME}.seq") == _whole()[state][f"{_NAME}.seq"]
    for _ in range(_TRIES):
        try:
            return _use(path, ceiling)
        except OutboxError as error:
            said = str(error)
            if _REFUSED in said:
                return False
    raise WrongError(f"stuck: {said.partition(': ')[2]}")


def _spoil(folder: Path, kind: str, what: str, *more: Any) -> None:
    if kind == "sql":
        try:
            db = sqlite3.connect(folder / _NAME, isolation_level=None)
            try:
                db.execute(what)
            finally:
                db.close()
        except (sqlite3.Error, UnicodeDecodeError):
            pass
        return
    file = folder / what
    content = bytearray(_bytes(file))
    if kind == "byte":
        if more[0] < len(content):
            content[more[0]] = more[1]
    elif kind == "cut":
        del content[more[0] :]
    elif kind == "fill":
        at, length, value = more
        content[at : at + length] = bytes([value]) * len(content[at : at + length])
    elif kind == "text":
        content = bytearray(more[0].encode())
    if kind == "remove":
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(content)


def _use(path: Path, ceiling_stands: bool) -> bool:
    """Do as the daemon and the sender do; everything may raise an `OutboxError`."""
    with Outbox(path, MIN_BYTES) as outbox:
        last = max((row.seq for row in outbox.pending()), default=0)
        for row in outbox.pending():
            if [type(value) for value in (row.seq, row.revision)] != [int, int]:
                raise WrongError("numbers that are none")
            if type(row.onset_utc_ns) is not int or type(row.event_id) is not str:
                raise WrongError("an onset or a name that is none")
            try:
                with_transport(row.payload, 10**18, delayed=True)
            except ValueError as error:
                outbox.refuse(row.seq, f"cannot be read back ({error})")
        seq = _append(outbox, 77)
        if ceiling_stands and seq <= last:
            raise WrongError("a number given out twice")
        if seq not in {row.seq for row in outbox.newer(seq - 1)}:
            raise WrongError("what was appended is not there")
        if seq != outbox.last_seq or outbox.chain.seq != seq:
            raise WrongError("numbers that do not go on")
        if any(gap.from_seq > gap.to_seq for gap in outbox.chain.gaps):
            raise WrongError("a gap that runs backward")
        outbox.expire(10**18, 86_400.0)
        outbox.refusals()
        outbox.acknowledge([seq])
        if not (outbox.depth >= 0 and outbox.refused >= 0 and outbox.dropped >= 0):
            raise WrongError("less than nothing")
        whole = not outbox.notices
    with Outbox(path, MIN_BYTES) as outbox:
        if outbox.last_seq != seq:
            raise WrongError("what was counted is forgotten")
    return whole


TARGETS: Final = (
    Target(
        "outbox",
        12_000,
        (
            "node.deliver.outbox",
            "node.deliver.tables",
            "node.deliver.database",
            "node.deliver.sequence",
        ),
        _corpus,
        _make,
        _check,
    ),
)
