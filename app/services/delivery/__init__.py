"""Delivery: every registration's mail goes out, once, and the last one accepted has the live number.

Calls go down only: relay -> senders -> worker -> queue, breaker, leases, which do not know each other. The
room's door is `app/services/messaging.py`. It may import repositories, mail, telemetry and domain; it knows
neither Flask nor Redis. docs/delivery.md has the drawing.
"""
