"""Load from wrk, and CPU time from /proc."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
SCRIPTS = Path(__file__).parent / "wrk"


@dataclass(frozen=True)
class Load:
    """What one round came to."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_s: float
    redis_cpu_s: float = 0.0
    drained_s: float = 0.0

    @property
    def cpu_ms(self) -> float:
        """CPU time of the service's processes per request."""
        return self.cpu_s * 1000 / max(1, self.requests)

    @property
    def redis_cpu_ms(self) -> float:
        """CPU time of Redis per request."""
        return self.redis_cpu_s * 1000 / max(1, self.requests)


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time that these processes have used so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * TICK_S


def pss_mb(pid: int) -> float:
    """Memory of a process, what it shares with others counted by its share, in megabytes."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", told, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def wrk(
    url: str,
    script: str,
    pids: list[int],
    *,
    seconds: int,
    connections: int = 32,
    **environment: str,
) -> Load:
    """One round of wrk with one thread. Raises CalledProcessError."""
    before = cpu_s(pids)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
    told = subprocess.run(
        [*command, "-s", str(SCRIPTS / f"{script}.lua"), url],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return _read(told, cpu_s(pids) - before)


def _read(told: str, cpu: float) -> Load:
    found: Mapping[str, re.Match[str] | None] = {
        "requests": re.search(r"(\d+) requests in", told),
        "rate": re.search(r"Requests/sec:\s+([\d.]+)", told),
        "status": re.search(r"Non-2xx or 3xx responses: (\d+)", told),
        "socket": re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", told),
    }
    socket = found["socket"]
    return Load(
        requests=int(found["requests"][1]) if found["requests"] else 0,
        rate=float(found["rate"][1]) if found["rate"] else 0.0,
        p50_ms=_percentile(told, "50%"),
        p99_ms=_percentile(told, "99%"),
        errors=int(found["status"][1] if found["status"] else 0)
        + sum(map(int, socket.groups() if socket else [])),
        cpu_s=cpu,
    )


def _percentile(told: str, which: str) -> float:
    found = re.search(rf"{which}\s+([\d.]+)(us|ms|s)\b", told)
    if not found:
        return 0.0
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]
