"""Makes wrong inputs from right ones: trees of JSON and TOML, lines of fields, plain bytes.

Values come from where parsers break: ends of ranges, numbers that no float or integer of 64 bits
holds, texts that are no UTF-8, moments that no calendar has, nesting without end.
"""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any, Final

NUMBERS: Final[tuple[Any, ...]] = (
    *(0, -0.0, 1, -1, 2, 3, 7, 8, 0.5, 1.0, 64, 65, 90, 90.0000001, 180, 180.1, 360, 360.001, 361),
    *(1e-12, 1e-300, 5e-324, 0.9999999, 1.0000001, 999, 9000, 9000.5, -500, -500.5, 10_000, 1e9),
    *(2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(10**400)),
    *(1e300, 1.7976931348623157e308, -1e308, math.nan, math.inf, -math.inf),
)
TEXTS: Final[tuple[str, ...]] = (
    *("", " ", "a", "é", "\0", "\n", "a\n", "+", "#", "a/b", "..", "-", "\ud800", "😀", "NaN", "1"),
    *("null", "x" * 64, "x" * 65, "x" * 257, "0" * 64, "٣", "2026-02-30T00:00:00.000000000Z"),
    *("2026-06-30T23:59:60.000000000Z", "1969-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59Z"),
    *("2026-01-01T00:00:00.0000000000Z", "2026-01-01 00:00:00+23:59", "0000-01-01T00:00:00Z"),
    *(
        "2026-05-01T12:00:00.000Z",
        "２０26-05-01T12:00:00.000000000Z",
        "mqtt://h",
        "mqtts://[::1]:1",
    ),
    *("mqtt://h:99999", "mqtt://[", "mqtt://u:p@h/\n", "localhost:2947", ":1", "h:0", "h:65536"),
    *("h:" + "1" * 5000, "%s%n", "gunfire", "pps", "mono", "A" * 5000),
)
ODD: Final[tuple[Any, ...]] = (None, True, False, [], {}, [[]], {"": None}, [None], [1, 2, 3])
_EDITS: Final = (1, 1, 1, 1, 2, 2, 3, 5)


def value(rng: Random, like: Any = None) -> Any:
    """Give a value to put where `like` stood: of its kind near it or at an edge, or of another."""
    pick = rng.random()
    if pick < 0.35 and type(like) in (int, float) and abs(like) < 1e300:
        if type(like) is int:
            return like + rng.choice((-1, 1, -like, like, rng.randrange(-1000, 1000)))
        return rng.choice(
            (like * rng.uniform(0.5, 2), -like, like + rng.gauss(0, 10), math.nextafter(like, 1e9))
        )
    if pick < 0.35 and isinstance(like, str) and like:
        at = rng.randrange(len(like))
        return like[:at] + rng.choice((*"0aZ9-:.T ", "", "\n", "é")) + like[at + rng.randrange(2) :]
    if pick < 0.7 and type(like) in (int, float):
        return rng.choice(NUMBERS)
    if pick < 0.7 and isinstance(like, str):
        return rng.choice(TEXTS)
    return copy.deepcopy(rng.choice(rng.choice((NUMBERS, TEXTS, ODD))))


def tree(rng: Random, root: Any) -> Any:
    """Change a tree of dicts and lists in some places; the root itself only seldom."""
    if rng.random() < 0.005:
        return value(rng, root)
    for _ in range(rng.choice(_EDITS)):
        branch = root
        while isinstance(branch, dict | list) and branch:
            key: Any = rng.choice(list(branch)) if isinstance(branch, dict) else 0
            if isinstance(branch, list):
                key = rng.randrange(len(branch))
            if not isinstance(branch[key], dict | list) or not branch[key] or rng.random() < 0.15:
                _edit(rng, branch, key)
                break
            branch = branch[key]
    return root


def _edit(rng: Random, branch: Any, key: Any) -> None:
    pick = rng.random()
    if pick < 0.8:
        branch[key] = value(rng, branch[key])
    elif isinstance(branch, list):
        if pick < 0.9:
            del branch[key]
        else:
            branch.extend(copy.deepcopy(branch[key]) for _ in range(rng.randrange(1, 70)))
    elif pick < 0.87:
        del branch[key]
    elif pick < 0.93:
        branch[rng.choice((*TEXTS[:16], f"{key}s", str(key).upper()))] = copy.deepcopy(branch[key])
    else:
        branch[rng.choice(list(branch))] = copy.deepcopy(branch[key])


def raw(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Change bytes without a thought for what they mean."""
    for _ in range(rng.choice(_EDITS)):
        at = rng.randrange(len(data) + 1)
        pick = rng.random()
        if pick < 0.35:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif pick < 0.5 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif pick < 0.6:
            data = data[:at]
        elif pick < 0.7:
            data = data[:at] + data[at + rng.randrange(1, 9) :]
        elif pick < 0.8:
            data = data[:at] + data[max(0, at - rng.randrange(1, 40)) :]
        elif pick < 0.9:
            data = data[:at] + rng.choice(_PIECES) + data[at:]
        else:
            data = data[:at] + other[rng.randrange(len(other) + 1) :]
    return data


_PIECES: Final = (
    *(
        b"\0",
        b"\xff",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\r\n",
        b'"',
        b"\\",
        b",",
        b"}",
    ),
    *(
        b"[" * 300,
        b"[" * 100_000,
        b'{"a":' * 3000,
        b"a." * 3000,
        b"9" * 5000,
        b"-",
        b"e999",
        b"NaN",
    ),
    *(b"Infinity", b"1_0", b" ", b"\t", b"#", b"=", b"[[", b"]]", b"0x" + b"f" * 5000, b"null"),
)


def json_text(rng: Random, corpus: list[bytes]) -> bytes:
    """Make the text of a JSON document: mostly its tree changed, else its bytes, or both."""
    text = rng.choice(corpus)
    pick = rng.random()
    if pick < 0.9:
        text = json.dumps(tree(rng, json.loads(text)), ensure_ascii=pick < 0.8).encode(
            "utf-8", "surrogatepass"
        )
    return text if pick < 0.85 else raw(rng, text, rng.choice(corpus))


def fields(rng: Random, line: str, separator: str) -> str:
    """Change fields of a line."""
    parts = line.split(separator)
    for _ in range(rng.choice(_EDITS)):
        at = rng.randrange(len(parts))
        pick = rng.random()
        if pick < 0.75:
            try:
                like: Any = float(parts[at])
            except ValueError:
                like = parts[at]
            parts[at] = str(value(rng, like))[:6000]
        elif pick < 0.85:
            parts[at] = rng.choice((" 1", "1_0", "٣", "0x10", "+1", "1e5", "1.", "-0", "1 ", "007"))
        elif pick < 0.9:
            parts.insert(at, parts[at])
        elif len(parts) > 1:
            del parts[at]
    return separator.join(parts)
