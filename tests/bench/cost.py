"""The pyperf script that `make bench` runs: WORKLOAD RECORDING."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pyperf

from tests.bench import pipeline, yamnet

WORKLOADS = {"pipeline": pipeline.workload, "yamnet": yamnet.workload}


def _pass_on(command: list[str], arguments: Namespace) -> None:
    command += [arguments.workload, str(arguments.recording)]


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("recording", type=Path)
    runner = pyperf.Runner(
        program_args=("-m", "tests.bench.cost"), add_cmdline_args=_pass_on, _argparser=parser
    )
    arguments = runner.parse_args()
    runner.bench_func(arguments.workload, WORKLOADS[arguments.workload](arguments.recording))
