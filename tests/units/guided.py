"""`gunfire-node check --mount` at a real terminal (a pty), with somebody who answers and claps.

The card plays what whoever stands on the ladder does, and the answers keep its time.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tests.units.good_node import RATE, Bench, bang
from tests.units.surroundings import Frames, Surroundings

SIDES_DEG: Final = (70.0, 160.0)
HEADING_DEG: Final = 40.0
RUBS_S: Final = tuple(20.0 + 5.0 * k for k in range(4))
CLAPS_S: Final = ((54.0, 56.0, 58.0), (70.0, 72.0, 74.0))
LENGTH_S: Final = 100
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


@dataclass(frozen=True)
class Answer:
    """What is answered to a prompt, and when at the earliest by the card's own time."""

    prompt: str
    text: str = ""
    card_s: float = 0.0


_BEGINNING: Final = (
    Answer("from true north?"),
    Answer("Quiet now"),
    *(Answer(f"Rub capsule {k} ", card_s=at - 0.5) for k, at in enumerate(RUBS_S)),
)
_CLAPPING: Final = (
    Answer("(3h); nothing leaves this out", f"{SIDES_DEG[0]:g}", 41.0),
    Answer("(3h); nothing leaves this out", f"{SIDES_DEG[1]:g}", 59.0),
)
_END: Final = (Answer("The sky"), Answer("The broker"))
MOUNTING: Final = (*_BEGINNING, *_CLAPPING, *_END)
WITHOUT_CLAPS: Final = (*_BEGINNING, *_END)


def mounting(plugs: Sequence[int] = (0, 1, 2, 3)) -> Frames:
    """Give quiet, a finger on each capsule in turn, and claps from two sides.

    Parameters
    ----------
    plugs
        For each microphone the channel that it is plugged into.
    """
    rng = np.random.default_rng(11)
    sound = np.round(rng.normal(0, 1e-3, (LENGTH_S * RATE, 4)) * 2**23).astype(np.int32) << 8
    for k, at_s in enumerate(RUBS_S):
        first, n = round(at_s * RATE), 2 * RATE
        finger = rng.normal(0, 0.1, n)
        for other in range(4):
            part = finger * (1.0 if other == k else 0.04)
            sound[first : first + n, other] += np.round(part * 2**23).astype(np.int32) << 8
    for side_deg, claps_s in zip(SIDES_DEG, CLAPS_S, strict=True):
        for at_s in claps_s:  # in the array's own axes
            bang(sound, at_s, side_deg - HEADING_DEG)
    played = np.empty_like(sound)
    played[:, list(plugs)] = sound
    return played


def bench(folder: Path, around: Surroundings, plugs: Sequence[int] = (0, 1, 2, 3)) -> Bench:
    """Make a node whose card plays a mounting; no pulse proves the order of its channels."""
    folder.mkdir(parents=True)
    made = Bench(folder, around)
    made.settings["capture"]["channels"] = 4
    del made.settings["timing"]["pps_channel"]
    made.sound = mounting(plugs)
    return made


def guided(
    on: Bench, answers: Sequence[Answer] = MOUNTING, deadline_s: float = 150.0
) -> tuple[int, str]:
    """Run the guided mode on a bench; give its exit code, and what the terminal showed."""
    with on.hooks:
        card = on.card()
        return answered(
            on.program("check", "--mount"),
            card.environment | on.environment,
            answers,
            on.folder / "card" / "truth.json",
            deadline_s,
        )


def answered(
    command: Sequence[str],
    environment: dict[str, str],
    answers: Sequence[Answer],
    truth: Path,
    deadline_s: float,
) -> tuple[int, str]:
    """Run a command at a terminal, and answer its prompts in their order."""
    ours, theirs = pty.openpty()
    said, read_to, left = "", 0, list(answers)
    with subprocess.Popen(
        command, env=environment | {"TERM": "xterm", "COLUMNS": "100"}, stdin=theirs,
        stdout=theirs, stderr=theirs, close_fds=True, preexec_fn=_take_terminal,
    ) as process:  # fmt: skip
        os.close(theirs)
        until_s = time.monotonic() + deadline_s
        while time.monotonic() < until_s:
            if left and left[0].prompt in said[read_to:] and _card_s(truth) >= left[0].card_s:
                answer = left.pop(0)
                read_to += said[read_to:].index(answer.prompt) + len(answer.prompt)
                os.write(ours, f"{answer.text}\n".encode())
            if not select.select([ours], [], [], 0.1)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                more = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            said += _ESCAPES.sub("", more.decode(errors="replace"))
        if process.poll() is None and time.monotonic() >= until_s:
            process.kill()
        code = process.wait(20)
    os.close(ours)
    return code, said


def _take_terminal() -> None:
    """Make the terminal one that Ctrl-C comes from."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _card_s(truth: Path) -> float:
    """Give the seconds that the card has played."""
    try:
        first_ns = json.loads(truth.read_text())["frame0_monotonic_ns"]
    except (OSError, ValueError):
        return 0.0
    return float(time.monotonic_ns() - first_ns) / 1e9
