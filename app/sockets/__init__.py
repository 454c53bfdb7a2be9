"""Connections to others, with deadlines: what mail and webhooks have in common.

names       look-ups of names; those that hang hold up no others
connecting  to the first of several addresses that answers
timed       a socket with one deadline over a whole step

Promise: every wait ends at its deadline, with TimeoutError, whatever the other side does, also under gevent.
Imports of the app only `threads`.
"""
