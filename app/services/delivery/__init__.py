"""Delivery: every registration's mail goes out, once, and the last one accepted has the live number.

Two parts keep the second half of that promise. `worker` asks whether the number is still live: it claims a
job again that has waited, and compares once more when it settles. `leases` says whether the address is still
ours, right before the mail's content.

Calls go down only: relay -> senders -> worker -> queue, breaker, leases, which do not know each other. The
room's door is `app/services/messaging.py`. It may import repositories, mail, telemetry and domain; it knows
neither Flask nor Redis. docs/delivery.md has the drawing. Tests: tests/delivery/ and
tests/unit/test_delivery_parts.py.
"""
