"""What is measured. Every function adds rows to a report; every row stands beside a yardstick of its run."""

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fill import Filler, FullShard
from benchmarks.load import Load, wrk
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


def compare(
    report: Report, on: Stage, contenders: Mapping[str, tuple[Gunicorn, str, dict[str, str]]]
) -> None:
    """Interleaves rounds of the yardstick and of every contender: (service, wrk script, its environment)."""
    bare = on.bare()
    yard: list[Load] = []
    found: dict[str, list[Load]] = {name: [] for name in contenders}
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(report.rounds):
        yard.append(wrk(bare.url, "register", bare.workers(), seconds=report.seconds))
        for position, (name, (service, script, environment)) in enumerate(contenders.items()):
            prefix = f"r{turn}p{position}x"
            load = wrk(
                service.url, script, service.workers(), seconds=report.seconds,
                **{"BENCH_PREFIX": prefix, **environment},
            )  # fmt: skip
            found[name].append(load)
            ratios[name].append(load.rate / yard[-1].rate)
            started = time.monotonic()
            on.settle()
            if environment.get("BENCH_PREFER"):
                report.add(f"{name}: backlog, round {turn + 1}", drained_s=time.monotonic() - started)
    report.add(
        "bare Flask POST", rate=_median(yard, lambda x: x.rate), cpu_ms=_median(yard, lambda x: x.cpu_ms)
    )
    for name, loads in found.items():
        report.add(
            name,
            ratio=statistics.median(ratios[name]),
            rate=_median(loads, lambda x: x.rate),
            cpu_ms=_median(loads, lambda x: x.cpu_ms),
            cpu_ms_min=min(load.cpu_ms for load in loads),
            p50_ms=_median(loads, lambda x: x.p50_ms),
            p99_ms=_median(loads, lambda x: x.p99_ms),
            errors=sum(load.errors for load in loads),
        )


def main_paths(report: Report) -> None:
    """Registration, respond-async, re-registration; mails accepted must be answers."""
    with stage(report.folder) as on:
        service = on.service(ADDRESS_LIMIT="")
        compare(
            report,
            on,
            {
                "register, mail accepted before the answer": (service, "register", {}),
                "register, respond-async": (service, "register", {"BENCH_PREFER": "respond-async"}),
                "register again (2,000 addresses)": (
                    service,
                    "register",
                    {"BENCH_SAME": "2000", "BENCH_PREFIX": "s"},
                ),
            },
        )
        wait_until(lambda: on.sink.mails > 0, 10, "the sink counts")
        report.add("mails accepted by the sink", mails=on.sink.mails)


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
            load = wrk(
                service.url, "verify", service.workers(), seconds=report.seconds, BENCH_NUMBERS=str(numbers)
            )
            ratios.append(load.rate / yard.rate)
            loads.append(load)
        report.add(
            "verify",
            ratio=statistics.median(ratios),
            rate=_median(loads, lambda x: x.rate),
            cpu_ms=_median(loads, lambda x: x.cpu_ms),
            cpu_ms_min=min(load.cpu_ms for load in loads),
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
    for name, change in off.items():
        with stage(report.folder / name.replace(" ", "-")) as on:
            compare(report, on, {name: (on.service(**{**everything, **change}), "register", told)})
    with stage(report.folder / "no-idempotency") as on:
        compare(
            report,
            on,
            {"without Idempotency-Key": (on.service(**everything), "register", {"BENCH_KEY": KEY})},
        )


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


def growth(report: Report, largest: int = 1_000_000) -> None:
    """CPU per registration, and bytes of Redis memory per user, from a thousand users on."""
    for secret, kind in ((SECRET, "sealed"), ("", "clear")):
        with stage(report.folder / kind) as on:
            service = on.service(ADDRESS_LIMIT="", **({} if secret else {"SECRET_KEY": ""}))
            filler, store, stored = Filler(on.store, secret), on.store, 0
            empty = store.info("memory")["used_memory"]
            for size in (10**power for power in range(3, 7)):
                if size > largest:
                    break
                for _ in filler.fill(f"g{n}@example.com" for n in range(stored, size)):
                    pass
                stored = size
                memory = (store.info("memory")["used_memory"] - empty) / store.dbsize() * 2
                loads = [
                    wrk(service.url, "register", service.workers(), seconds=report.seconds,
                        BENCH_PREFIX=f"{kind}{size}r{turn}x")
                    for turn in range(report.rounds)
                ]  # fmt: skip
                report.add(
                    f"{size:>9,} users, {kind}",
                    users=size,
                    cpu_ms=_median(loads, lambda x: x.cpu_ms),
                    cpu_ms_min=min(load.cpu_ms for load in loads),
                    bytes_per_user=memory,
                )
                on.settle()


def number_space(report: Report) -> None:
    """Script calls per registration as the number space of a shard fills."""
    for share in (0.0, 0.5, 0.9, 0.99, 0.999):
        valkey = Valkey(report.folder / f"full-{share}", save="")
        try:
            full = FullShard(valkey.client(), 20_000, share)
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
