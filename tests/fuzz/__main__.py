"""Fuzz one target, or try an input again that failed.

python -m tests.fuzz run chrony --inputs 20000 --seed 7
python -m tests.fuzz again build/fuzz/chrony-0123456789ab
python -m tests.fuzz guided detection --inputs 100000

The last is led by coverage, and needs `pip install atheris`: x86-64 only, so no part of the set-up.
"""

from __future__ import annotations

import json
import logging
import mmap
import sys
import tempfile
import traceback
from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path
from random import Random

if "guided" in sys.argv[1:2]:
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris, or use `run`, which needs nothing")
    with atheris.instrument_imports(include=["node"]):
        import_module("tests.fuzz.targets")  # and with it all that is to be followed

from tests.fuzz.engine import KEPT, MOST_FINDINGS, run
from tests.fuzz.plants import PLANTS
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run."""
    parser = ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="fuzz one target")
    runs.add_argument("target", choices=TARGETS)
    runs.add_argument("--inputs", type=int, default=10_000)
    runs.add_argument("--first", type=int, default=0, help="number of the first input")
    runs.add_argument("--seed", type=int, default=1)
    runs.add_argument("--most", type=int, default=MOST_FINDINGS, help="end after so many findings")
    runs.add_argument("--plant", choices=PLANTS, help="with this bug planted")
    runs.add_argument("--place", type=Path, help="a file of 8 bytes: the number under way")
    runs.set_defaults(call=_run)
    again = commands.add_parser("again", help="try a kept input")
    again.add_argument("file", type=Path)
    again.set_defaults(call=_again)
    guided = commands.add_parser("guided", help="fuzz one target, led by coverage")
    # An outbox's inputs are steps to take: of other bytes its target makes nothing.
    guided.add_argument("target", choices=sorted({*TARGETS} - {"outbox"}))
    guided.add_argument("--inputs", type=int, default=100_000)
    guided.add_argument("--seed", type=int, default=1)
    guided.set_defaults(call=_guided)
    arguments = parser.parse_args()
    logging.disable()
    result: int = arguments.call(arguments)
    return result


def _run(wanted: Namespace) -> int:
    target = TARGETS[wanted.target]
    if wanted.plant:
        PLANTS[wanted.plant].plant()
    place = mmap.mmap(-1, 8)
    if wanted.place:
        with wanted.place.open("r+b") as file:
            place = mmap.mmap(file.fileno(), 8)

    def at(number: int) -> None:
        place[:] = number.to_bytes(8, "little")

    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory()) as folder:
        tally = run(target, wanted.seed, wanted.first, wanted.inputs, Path(folder), at, wanted.most)
    findings = [
        {"number": f.number, "what": f.what, "place": f.place, "file": str(f.keep())}
        for f in tally.findings
    ]
    json.dump(
        {"inputs": tally.inputs, "accepted": tally.accepted, "findings": findings}, sys.stdout
    )
    print()
    return bool(findings)


def _again(wanted: Namespace) -> int:
    target = TARGETS[wanted.file.name.partition("-")[0]]
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory()) as folder:
        try:
            accepted = target.check(wanted.file.read_bytes(), Path(folder))
        except Exception:
            traceback.print_exc()
            return 1
    print("accepted, and right" if accepted else "refused")
    return 0


def _guided(wanted: Namespace) -> int:
    """Let libFuzzer choose what to go on from; half of its steps are the target's own."""
    target = TARGETS[wanted.target]
    corpus = target.corpus()
    KEPT.mkdir(parents=True, exist_ok=True)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            try:
                made = target.make(random, [bytes(data)])
            except Exception:  # it is no input of the right shape any more
                made = target.make(random, corpus)
            if len(made) <= max_size:
                return made
        return bytes(atheris.Mutate(data, max_size))

    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory()) as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for number, data in enumerate(corpus):
            (seeds / str(number)).write_bytes(data)
        options = {
            "runs": wanted.inputs,
            "seed": wanted.seed,
            "max_len": 1 << 16,
            "timeout": 10,
            "artifact_prefix": KEPT / f"{target.name}-",
        }
        arguments = [f"-{name}={value}" for name, value in options.items()]

        def attempt(data: bytes) -> None:
            target.check(data, Path(folder))

        atheris.Setup([sys.argv[0], *arguments, str(seeds)], attempt, custom_mutator=mutate)
        atheris.Fuzz()
    return 0


def _memory() -> str | None:
    """Files in memory where there is such a folder: no card is worn by a million of them."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108


if __name__ == "__main__":
    sys.exit(main())
