"""What is measured. Every function adds rows to a report; every row stands beside a yardstick of its run."""

import contextlib
import hashlib
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fill import Filler, FullShard
from benchmarks.load import Load, cpu_s, pss_mb, wrk
from benchmarks.open_loop import open_loop
from benchmarks.stage import SECRET, Stage, stage
from tests.support.servers import Gunicorn, Valkey
from tests.support.waiting import wait_until

KEY = "cedula_benchmark"


@dataclass
class Report:
    """Rows of text for a person, figures for a program."""

    rounds: int
    seconds: int
    folder: Path
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, what: str, **figures: object) -> None:
        self.rows.append({"what": what, **figures})
        told = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
        print(f"{what:<48}", told, flush=True)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return str(value)


def _medians(loads: list[Load], *figures: str) -> dict[str, float]:
    return {name: statistics.median(getattr(load, name) for load in loads) for name in figures}


def served(on: Stage, service: Gunicorn, script: str, seconds: int, **environment: Any) -> Load:
    """One round of wrk, and what it left to do, with the CPU time of both, and of Redis until wrk ends."""
    redis_before = cpu_s([on.valkey.pid])
    load = wrk(service.url, script, service.workers(), seconds=seconds, **environment)
    redis_cpu_s, used = cpu_s([on.valkey.pid]) - redis_before, cpu_s(service.workers())
    started = time.monotonic()
    on.settle()
    return replace(
        load,
        cpu_s=load.cpu_s + cpu_s(service.workers()) - used,
        redis_cpu_s=redis_cpu_s,
        drained_s=time.monotonic() - started,
    )


Turn = Callable[[int], Load]
"""One round of one contender; it is told the number of the round."""


def interleaved(rounds: int, turns: Mapping[str, Turn]) -> dict[str, list[Load]]:
    """Every contender once a round, in changing order: what else the machine does hits all alike."""
    found: dict[str, list[Load]] = {name: [] for name in turns}
    for turn in range(rounds):
        for name in random.sample(list(turns), len(turns)):
            found[name].append(turns[name](turn))
    return found


YARD = "bare Flask POST"
GUNICORNS = ("--worker-class", "gevent")
"""The yardstick runs under gunicorn's own worker, so that what our worker saves does not shorten it."""


def compare(report: Report, bare: Gunicorn, turns: Mapping[str, Turn]) -> dict[str, list[Load]]:
    """Interleaved rounds of the yardstick and of every contender, and a row for each."""
    yardstick: Turn = lambda _: wrk(bare.url, "register", bare.workers(), seconds=report.seconds)  # noqa: E731
    found = interleaved(report.rounds, {YARD: yardstick, **turns})
    yard = found.pop(YARD)
    report.add(YARD, **_medians(yard, "rate", "cpu_ms"))
    for name, loads in found.items():
        pairs = list(zip(loads, yard, strict=True))
        report.add(
            name,
            **_spread("ratio", [load.rate / bare_load.rate for load, bare_load in pairs]),
            **_spread("cpu_of_bare", [load.cpu_ms / bare_load.cpu_ms for load, bare_load in pairs]),
            **_spread("cpu_ms", [load.cpu_ms for load in loads]),
            **_medians(loads, "rate", "p50_ms", "p99_ms", "redis_cpu_ms", "drained_s"),
            errors=sum(load.errors for load in loads),
        )
    return found


def _spread(name: str, values: list[float]) -> dict[str, float]:
    """The median, and the lowest and highest of all rounds."""
    return {name: statistics.median(values), f"{name}_low": min(values), f"{name}_high": max(values)}


def registering(report: Report, on: Stage, service: Gunicorn, position: int, **settings: str) -> Turn:
    """Rounds of registrations; the addresses of each round and each contender are its own."""
    return lambda turn: served(
        on, service, "register", report.seconds, **{"BENCH_PREFIX": f"r{turn}p{position}x", **settings}
    )


def main_paths(report: Report) -> None:
    """Registration in its variants and verification, beside the yardstick and the floor; every answer has
    its mail."""
    with stage(report.folder) as on, stage(report.folder / "floor") as below:
        service, floor = on.service(ADDRESS_LIMIT="", MAILBOX_LIMIT=""), below.floor()
        ours = on.bare()
        filler = Filler(on.store, SECRET)

        def verify(turn: int) -> Load:
            numbers = on.folder / f"numbers-{turn}.txt"
            made = filler.fill(f"v{turn}.{n}@example.com" for n in range(8000 * report.seconds))
            numbers.write_text("".join(f"{address} {number}\n" for address, number in made))
            return served(on, service, "verify", report.seconds, BENCH_NUMBERS=str(numbers))

        found = compare(
            report,
            on.bare(*GUNICORNS),
            {
                "bare Flask POST under our own worker": lambda _: wrk(
                    ours.url, "register", ours.workers(), seconds=report.seconds
                ),
                "floor: bare gevent, same traffic": lambda _: wrk(
                    floor.url, "register", floor.workers(), seconds=report.seconds
                ),
                "register, mail accepted before the answer": registering(report, on, service, 1),
                "register, respond-async": registering(report, on, service, 2, BENCH_PREFER="respond-async"),
                "register again (2,000 addresses)": registering(
                    report, on, service, 3, BENCH_SAME="2000", BENCH_PREFIX="s"
                ),
                "verify": verify,
            },
        )
        answers = sum(
            load.requests for name, loads in found.items() if name.startswith("register") for load in loads
        )
        # wrk leaves without the answers to its last requests (32 a round); they are mailed all the same.
        wait_until(lambda: on.sink.mails >= answers, 10, "every answer has its mail")
        report.add("mails accepted by the sink", mails=on.sink.mails, answers=answers)
        report.add("memory of a worker, after all that", pss_mb=max(map(pss_mb, service.workers())))


SHARE = 0.3
"""Of the highest rate: what a service that is not overloaded carries."""


def latency(report: Report) -> None:
    """How long people wait at 30 % of the highest rate: requests come when they come (an open loop)."""
    with stage(report.folder) as on:
        service = on.service(ADDRESS_LIMIT="", MAILBOX_LIMIT="")
        highest = wrk(service.url, "register", service.workers(), seconds=report.seconds)
        on.settle()
        runs = [
            open_loop(
                service.port, partial(_registration, f"o{turn}"), SHARE * highest.rate, report.seconds * 2
            )
            for turn in range(report.rounds)
        ]
        report.add(
            "register at 30 % load, mail accepted",
            rate=statistics.median(run.rate for run in runs),
            **_spread("p50_ms", [run.p50_ms for run in runs]),
            **_spread("p99_ms", [run.p99_ms for run in runs]),
            errors=sum(run.errors for run in runs),
        )


def _registration(prefix: str, n: int) -> bytes:
    body = f'{{"email":"{prefix}.{n}@example.com","token":"{"t" * 64}"}}'.encode()
    return (
        b"POST /api/users HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


def features(report: Report) -> None:
    """All features on, and each off in turn."""
    everything = {
        "API_KEYS": f"bench:{hashlib.sha256(KEY.encode()).hexdigest()}",
        "CLIENT_LIMIT": "10000000/minute",
    }
    off: dict[str, dict[str, str]] = {
        "all features": {},
        "without API keys": {"API_KEYS": ""},
        "without CLIENT_LIMIT": {"CLIENT_LIMIT": ""},
        "without budgets of mails": {"ADDRESS_LIMIT": "", "MAILBOX_LIMIT": ""},
        "without sealing": {"SECRET_KEY": "", "INDEX_KEY": SECRET},
    }
    told = {"BENCH_KEY": KEY, "BENCH_IDEMPOTENT": "1"}
    with contextlib.ExitStack() as stages:
        turns: dict[str, Turn] = {}
        for position, (name, change) in enumerate(off.items()):
            on = stages.enter_context(stage(report.folder / name.replace(" ", "-")))
            service = on.service(**{**everything, **change})
            turns[name] = registering(report, on, service, position, **told)
            if name == "all features":
                turns["without Idempotency-Key"] = registering(report, on, service, 90, BENCH_KEY=KEY)
        plain = stages.enter_context(stage(report.folder / "plain"))
        turns["as it comes: sealing, ADDRESS_LIMIT"] = registering(report, plain, plain.service(), 91)
        compare(report, plain.bare(*GUNICORNS), turns)


def slow_mail_server(report: Report) -> None:
    """A mail server that takes 50 and 200 ms a mail; 256 clients."""
    for delay_ms in (50, 200):
        with stage(report.folder, delay_ms) as on:
            service = on.service(MAIL_CONNECTIONS="128")
            load = wrk(
                service.url, "register", service.workers(), seconds=report.seconds * 2, connections=256
            )
            report.add(
                f"mail server takes {delay_ms} ms, 256 clients",
                **_medians([load], "rate", "p50_ms", "p99_ms", "cpu_ms"),
                errors=load.errors,
            )


def growth(report: Report, sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)) -> None:
    """CPU per registration with so many users stored, interleaved; bytes of Redis memory a user.

    Stored users register again, all over the number of them, so their number stays what it is.
    """
    with contextlib.ExitStack() as stages:
        turns: dict[str, Turn] = {}
        bytes_per_user: dict[str, float] = {}
        names = {f"{size:>9,} users": size for size in sizes}
        for name, size in names.items():
            on = stages.enter_context(stage(report.folder / str(size)))
            bytes_per_user[name] = _fill(on, SECRET, size)
            turns[name] = partial(
                _registered_again, on, on.service(ADDRESS_LIMIT="", MAILBOX_LIMIT=""), report.seconds, size
            )
        # Twice the rounds: what is looked for is less than the noise of one.
        found = interleaved(2 * report.rounds, turns)
        medians = {name: _medians(loads, "cpu_ms", "redis_cpu_ms") for name, loads in found.items()}
        smallest = next(iter(medians.values()))["cpu_ms"]
        for name, figures in medians.items():
            report.add(
                name,
                users=names[name],
                **figures,
                of_smallest=figures["cpu_ms"] / smallest,
                bytes_per_user=bytes_per_user[name],
            )
    with stage(report.folder / "clear") as on:
        report.add("memory in clear", users=sizes[-2], bytes_per_user=_fill(on, "", sizes[-2]))


def _registered_again(on: Stage, service: Gunicorn, seconds: int, size: int, _: int) -> Load:
    return served(on, service, "register", seconds, BENCH_PREFIX="g", BENCH_SAME=str(size))


def _fill(on: Stage, secret: str, size: int) -> float:
    """Stores so many users; the bytes of Redis memory that each takes."""
    empty = on.store.info("memory")["used_memory"]
    for _ in Filler(on.store, secret).fill(f"g1.{n}@example.com" for n in range(size)):
        pass
    return float(on.store.info("memory")["used_memory"] - empty) / size


def number_space(report: Report) -> None:
    """Script calls per registration as the number space of a shard fills."""
    for share in (0.0, 0.5, 0.9, 0.99, 0.999):
        valkey = Valkey(report.folder / f"full-{share}", save="")
        try:
            full = FullShard(valkey.url, 20_000, share)
            report.add(f"number space {share:.1%} full", share=share, calls=full.calls_per_registration(1000))
        finally:
            valkey.stop()


def outage(report: Report) -> None:
    """Mails per second of the relay after the mail server was away."""
    with stage(report.folder) as on:
        on.sink.stop()
        service = on.service()
        load = wrk(service.url, "register", service.workers(), seconds=report.seconds)
        report.add(
            "registrations while the mail server is away",
            **_medians([load], "rate", "p50_ms"),
            errors=load.errors,
        )
        owed = on.store.dbsize() // 2
        on.sink.start()
        wait_until(lambda: on.sink.mails > 0, 60, "the first mail after the outage")
        started = time.monotonic()
        on.settle()
        report.add("relay after the outage", mails=owed, rate=owed / (time.monotonic() - started))


def redis_alone(report: Report) -> None:
    """The same script on Redis alone, by redis-benchmark's way: one connection, pipelined."""
    with stage(report.folder) as on:
        started = time.monotonic()
        count = sum(1 for _ in Filler(on.store, SECRET).fill(f"a{n}@example.com" for n in range(20_000)))
        wall = time.monotonic() - started
        used = on.store.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]
        report.add("register.lua on Redis alone", redis_us_per_call=float(used), filled_per_s=count / wall)


CONTENTS: Mapping[str, Callable[[Report], None]] = {
    "main": main_paths,
    "latency": latency,
    "features": features,
    "slow-mail": slow_mail_server,
    "growth": growth,
    "numbers": number_space,
    "outage": outage,
    "redis": redis_alone,
}
