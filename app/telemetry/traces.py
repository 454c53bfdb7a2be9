"""Traces: how long each step of a request, of its mail and of a sweep took. Off by default.

Names and facts of steps are words of this code, codes and counts: nothing that a client or a person sent, and
no text of an exception. Whether they are on: app/telemetry/collector.py. What every request passes is traced
by subclasses that are only made then (`Traced…`, in storage and services). May import nothing of the app.
"""

from contextlib import AbstractContextManager, nullcontext

NOTHING: AbstractContextManager[None] = nullcontext()
"""The step that is not traced."""


class Traces:
    """What is traced, while it is off: nothing. Every method but `fault` is for any thread at any time.

    `on`: steps are collected. `fault`: why they are not, although an endpoint is set.
    """

    on = False

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def request(self, traceparent: str) -> AbstractContextManager[None]:
        """A request, as a part of the trace that its W3C `traceparent` names; else of a new one."""
        return NOTHING

    def answered(self, route: str, method: str, status: int) -> str:
        """What became of the present request. Returns its `traceparent`, empty where it is not traced.

        `route`: the rule with its placeholders, never the path.
        """
        return ""

    def work(self, name: str, traceparent: str = "") -> AbstractContextManager[None]:
        """Work of a thread of ours: as a part of the trace that is named, else of one of its own."""
        return NOTHING

    def step(self, name: str) -> AbstractContextManager[None]:
        """A part of the present request or work; outside of them it is not traced."""
        return NOTHING

    def redis(self, operation: str) -> AbstractContextManager[None]:
        """A step that waits for Redis. `operation`: the name of a script or a command, and no key."""
        return NOTHING

    def note(self, name: str, value: str) -> None:
        """A fact about the present step."""

    def here(self) -> str:
        """The `traceparent` of the present step, to be handed on; empty where nothing is traced."""
        return ""

    def close(self) -> None:
        """Hands over what was collected, and returns after a few seconds at most."""


OFF = Traces()
