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

from benchmarks.fill import Filler, FullShard
from benchmarks.load import Load, cpu_s, wrk
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
        print(
            f"{what:<48}", "  ".join(f"{name} {_short(value)}" for name, value in figures.items()), flush=True
        )


def _short(value: object) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


def _median(loads: list[Load], figure: Callable[[Load], float]) -> float:
    return statistics.median(figure(load) for load in loads)


def served(on: Stage, service: Gunicorn, script: str, seconds: int, **environment: str) -> Load:
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


def interleaved(rounds: int, turns: Mapping[str, Callable[[int], Load]]) -> dict[str, list[Load]]:
    """Every contender once a round, in changing order: what else the machine does hits all alike."""
    found: dict[str, list[Load]] = {name: [] for name in turns}
    for turn in range(rounds):
        for name in random.sample(list(turns), len(turns)):
            found[name].append(turns[name](turn))
    return found


YARD = "bare Flask POST"


def compare(
    report: Report, on: Stage, contenders: Mapping[str, tuple[Stage, Gunicorn, dict[str, str]]]
) -> int:
    """Rounds of the yardstick and of every contender: (its stage, its service, settings of the script).

    Returns the number of answers that the contenders gave.
    """
    bare = on.bare()
    turns: dict[str, Callable[[int], Load]] = {
        YARD: lambda _: wrk(bare.url, "register", bare.workers(), seconds=report.seconds)
    }

    def turn_of(name: str, position: int) -> Callable[[int], Load]:
        where, service, settings = contenders[name]
        return lambda turn: served(
            where, service, "register", report.seconds, **{"BENCH_PREFIX": f"r{turn}p{position}x", **settings}
        )

    turns |= {name: turn_of(name, position) for position, name in enumerate(contenders)}
    found = interleaved(report.rounds, turns)
    yard = found.pop(YARD)
    report.add(YARD, rate=_median(yard, lambda x: x.rate), cpu_ms=_median(yard, lambda x: x.cpu_ms))
    for name, loads in found.items():
        report.add(
            name,
            ratio=statistics.median(
                load.rate / bare_load.rate for load, bare_load in zip(loads, yard, strict=True)
            ),
            rate=_median(loads, lambda x: x.rate),
            cpu_ms=_median(loads, lambda x: x.cpu_ms),
            cpu_ms_min=min(load.cpu_ms for load in loads),
            p50_ms=_median(loads, lambda x: x.p50_ms),
            p99_ms=_median(loads, lambda x: x.p99_ms),
            errors=sum(load.errors for load in loads),
            drained_s=_median(loads, lambda x: x.drained_s),
        )
    return sum(load.requests for loads in found.values() for load in loads)


def main_paths(report: Report) -> None:
    """Registration, respond-async and the backlog it leaves, registering again; every answer has its mail."""
    with stage(report.folder) as on:
        service = on.service(ADDRESS_LIMIT="")
        answers = compare(
            report,
            on,
            {
                "register, mail accepted before the answer": (on, service, {}),
                "register, respond-async": (on, service, {"BENCH_PREFER": "respond-async"}),
                "register again (2,000 addresses)": (
                    on,
                    service,
                    {"BENCH_SAME": "2000", "BENCH_PREFIX": "s"},
                ),
            },
        )
        # wrk leaves without the answers to its last requests (32 a round); they are mailed all the same.
        wait_until(lambda: on.sink.mails >= answers, 10, "every answer has its mail")
        report.add("mails accepted by the sink", mails=on.sink.mails, answers=answers)


def verification(report: Report) -> None:
    """Handing in the right numbers of registered users."""
    with stage(report.folder) as on:
        service, bare = on.service(), on.bare()
        filler = Filler(on.store, SECRET)
        ratios, loads = [], []
        for turn in range(report.rounds):
            numbers = on.folder / f"numbers-{turn}.txt"
            wanted = 6000 * report.seconds
            made = filler.fill(f"v{turn}.{n}@example.com" for n in range(wanted))
            numbers.write_text("".join(f"{address} {number}\n" for address, number in made))
            yard = wrk(bare.url, "register", bare.workers(), seconds=report.seconds)
            load = served(on, service, "verify", report.seconds, BENCH_NUMBERS=str(numbers))
            ratios.append(load.rate / yard.rate)
            loads.append(load)
        report.add(
            "verify",
            ratio=statistics.median(ratios),
            rate=_median(loads, lambda x: x.rate),
            cpu_ms=_median(loads, lambda x: x.cpu_ms),
            cpu_ms_min=min(load.cpu_ms for load in loads),
            redis_cpu_ms=_median(loads, lambda x: x.redis_cpu_ms),
            errors=sum(load.errors for load in loads),
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
        "without ADDRESS_LIMIT": {"ADDRESS_LIMIT": ""},
        "without sealing": {"SECRET_KEY": "", "INDEX_KEY": SECRET},
    }
    told = {"BENCH_KEY": KEY, "BENCH_IDEMPOTENT": "1"}
    with contextlib.ExitStack() as stages:
        contenders: dict[str, tuple[Stage, Gunicorn, dict[str, str]]] = {}
        for name, change in off.items():
            on = stages.enter_context(stage(report.folder / name.replace(" ", "-")))
            contenders[name] = on, on.service(**{**everything, **change}), told
        everywhere, service, _ = contenders["all features"]
        contenders["without Idempotency-Key"] = everywhere, service, {"BENCH_KEY": KEY}
        plain = stages.enter_context(stage(report.folder / "plain"))
        contenders["as it comes: sealing, ADDRESS_LIMIT"] = plain, plain.service(), {}
        compare(report, everywhere, contenders)


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
                rate=load.rate,
                p50_ms=load.p50_ms,
                p99_ms=load.p99_ms,
                cpu_ms=load.cpu_ms,
                errors=load.errors,
            )


def growth(report: Report, sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)) -> None:
    """CPU per registration with so many users stored, interleaved; bytes of Redis memory a user.

    Stored users register again, all over the number of them, so their number stays what it is.
    """
    with contextlib.ExitStack() as stages:
        turns: dict[str, Callable[[int], Load]] = {}
        bytes_per_user: dict[str, float] = {}
        names = {f"{size:>9,} users": size for size in sizes}
        for name, size in names.items():
            on = stages.enter_context(stage(report.folder / str(size)))
            bytes_per_user[name] = _fill(on, SECRET, size)
            turns[name] = partial(_registered_again, on, on.service(ADDRESS_LIMIT=""), report.seconds, size)
        # Twice the rounds: what is looked for is less than the noise of one.
        found = interleaved(2 * report.rounds, turns)
        smallest = _median(next(iter(found.values())), lambda x: x.cpu_ms)
        for name, loads in found.items():
            cpu_ms = _median(loads, lambda x: x.cpu_ms)
            report.add(
                name,
                users=names[name],
                cpu_ms=cpu_ms,
                of_smallest=cpu_ms / smallest,
                redis_cpu_ms=_median(loads, lambda x: x.redis_cpu_ms),
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
            rate=load.rate,
            p50_ms=load.p50_ms,
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
    "verify": verification,
    "features": features,
    "slow-mail": slow_mail_server,
    "growth": growth,
    "numbers": number_space,
    "outage": outage,
    "redis": redis_alone,
}
