"""What the gateway costs, beside LiteLLM's proxy, in front of the same stub of a model server.

    python -m tests.bench.gateway --out DIR            # `make bench-gateway`; about ten minutes

Everything is on one machine: the stub, the gateways and the load. Each round visits the targets in
another order, and each target's median over the rounds counts. `direct` is the stub without a
gateway: what a gateway adds is the difference to it. byheart logs every interaction to its database
before the last byte, LiteLLM has no database. A busy machine is refused: times would be noise.
"""

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import uvloop

from tests.bench import load
from tests.bench.engine_stub import MODEL
from tests.bench.gateway_servers import Target, targets

BUSY, LOOK_S = 0.2, 1.0
"""Share of the cores' time from which on the machine is busy, while nothing is measured."""
WARM_UP, ALONE, CONNECTIONS, LOADED_S = 50, 300, 16, 6.0
WARM_STREAMS, STREAMS = 1, 4

Numbers = dict[str, dict[str, list[float]]]
"""Of each target, by what was measured: a number for each round."""


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for data, logs and results")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--soak", type=int, help="ask byheart alone so often, and watch its memory")
    options = parser.parse_args()
    refuse_busy()
    options.out.mkdir(parents=True, exist_ok=True)
    with targets(options.out.resolve(), ("direct", "byheart") if options.soak else ()) as found:
        if options.soak:
            uvloop.run(soak(found[-1], options.soak))
            return
        numbers = uvloop.run(measure(found, options.rounds))
    (options.out / "gateway.json").write_text(json.dumps(numbers, indent=1))
    print(table(numbers))


def refuse_busy() -> None:
    """End the program where other work would be measured too; looked at between measurements."""
    idle, total = _cpu_time()
    time.sleep(LOOK_S)
    idle_then, total_then = _cpu_time()
    share = 1 - (idle_then - idle) / (total_then - total)
    if share > BUSY:
        sys.exit(
            f"The machine is busy: {share:.0%} of its cores' time goes to other work, at most "
            f"{BUSY:.0%} is measured beside. Try again when it is quiet."
        )


def _cpu_time() -> tuple[int, int]:
    """What all cores have idled since the start, and how long they have been there (proc(5))."""
    times = [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return times[3] + times[4], sum(times)


async def soak(target: Target, count: int) -> None:
    """Print the memory of a target over so many requests, in ten steps."""
    request, done = load.chat(target.url, MODEL), 0
    print("| requests | memory, MiB |\n|---|---|")
    print(f"| 0 | {target.memory_mib:.0f} |", flush=True)
    for step in range(1, 11):
        while done < count * step // 10:
            done += len(await load.throughput(target.url, request, CONNECTIONS, LOADED_S))
        print(f"| {done} | {target.memory_mib:.0f} |", flush=True)


async def measure(found: Sequence[Target], rounds: int) -> Numbers:
    """All rounds; memory is read before the first and after the last."""
    numbers: Numbers = {target.name: defaultdict(list) for target in found}
    for target in found:
        numbers[target.name]["idle, MiB"].append(target.memory_mib)
        await load.in_turn(target.url, load.chat(target.url, MODEL), WARM_UP)
        await streams(target, WARM_STREAMS)
    for number in range(rounds):
        refuse_busy()
        for target in random.Random(number).sample(found, len(found)):
            print(f"round {number + 1}/{rounds}: {target.name}", file=sys.stderr, flush=True)
            for name, value in (await measure_once(target)).items():
                numbers[target.name][name].append(value)
    for target in found:
        numbers[target.name]["after load, MiB"].append(target.memory_mib)
    return numbers


async def measure_once(target: Target) -> dict[str, float]:
    """One round of one target; times in milliseconds."""
    request = load.chat(target.url, MODEL)
    alone = [answer.seconds for answer in await load.in_turn(target.url, request, ALONE)]
    busy = await load.throughput(target.url, request, CONNECTIONS, LOADED_S)
    first, way = await streams(target, STREAMS)
    return {
        "alone p50, ms": 1000 * median(alone),
        "alone p99, ms": 1000 * quantiles(alone, n=100)[-1],
        "requests/s": len(busy) / LOADED_S,
        "loaded p99, ms": 1000 * quantiles(busy, n=100)[-1],
        "first token, ms": 1000 * median(first),
        "chunk, ms": 1000 * median(way),
    }


async def streams(target: Target, count: int) -> tuple[list[float], list[float]]:
    """Seconds to the first token of some streams, and from the stub to here of each chunk."""
    request = load.chat(target.url, MODEL, stream=True)
    answers = await load.in_turn(target.url, request, count)
    first = [answer.first_token - answer.began for answer in answers]
    return first, [seconds for answer in answers for seconds in answer.on_its_way]


def table(numbers: Numbers) -> str:
    """The medians in Markdown, and in brackets what lies between the quartiles."""
    names = list(next(iter(numbers.values())))
    rows = ["| | " + " | ".join(numbers) + " |", "|---" * (len(numbers) + 1) + "|"]
    for name in names:
        cells = [spread(measured[name]) for measured in numbers.values()]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def spread(values: Sequence[float]) -> str:
    """The median of some numbers, and the quartiles where there are several."""
    if len(values) < 2:
        return f"{median(values):.0f}"
    low, middle, high = quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
