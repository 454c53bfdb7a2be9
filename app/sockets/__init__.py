"""Connections to other servers, with deadlines: what mail and webhooks have in common.

names  looks names up; one that hangs holds up no other
timed  connects, starts TLS, reads and writes, with one deadline over a whole step

Promise: every wait ends at its deadline with TimeoutError, whatever the other side does, also under gevent.
Imports of the app only `threads`.
"""
