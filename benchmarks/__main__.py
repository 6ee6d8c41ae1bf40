"""Runs the benchmarks named on the command line, or all: `python -m benchmarks [--quick] [NAME …]`.

Each prints what it measured with its set-up. A figure that is missed is no error: these are
readings, and other work on the machine is in them.
"""

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from benchmarks import (
    filled_database,
    memory,
    one_at_a_time,
    one_channel,
    thread_cost,
    throughput,
    twenty_at_once,
)
from benchmarks.report import Figure, render_table
from benchmarks.stage import Bench, Size, split_cores

Benchmark: TypeAlias = Callable[[Bench], Awaitable[list[Figure]]]
BENCHMARKS: Mapping[str, Benchmark] = {
    "one_at_a_time": one_at_a_time.run,
    "twenty_at_once": twenty_at_once.run,
    "one_channel": one_channel.run,
    "throughput": throughput.run,
    "memory": memory.run,
    "filled_database": filled_database.run,
    "thread_cost": thread_cost.run,
}


def main() -> None:
    """Runs, and prints one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer turns, rougher figures")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    bench = Bench(Size.QUICK if arguments.quick else Size.FULL, split_cores())
    _print_machine(bench)
    figures: list[Figure] = []
    for name in arguments.names or BENCHMARKS:
        began = time.monotonic()
        figures += asyncio.run(_measure(name, bench))
        took_s, load = time.monotonic() - began, os.getloadavg()[0]
        print(f"{name}: {took_s:.0f} s, load {load:.1f}", file=sys.stderr)
    print(render_table(figures))


async def _measure(name: str, bench: Bench) -> list[Figure]:
    return await BENCHMARKS[name](bench)


def _print_machine(bench: Bench) -> None:
    bot = "no core of its own" if bench.bot_core is None else f"core {bench.bot_core}"
    print(
        f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores; "
        f"the bot on {bot}, servers and benchmark on another. "
        f"Load before: {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
