"""Webhooks: what a receiver of events is told, and how that travels.

webhooks   posts an event, over a kept connection or a new one; says whether it was taken
answers    what an answer means, or that there is none
exchange   one request and one answer over a stream: Python's http.client
kept       connections that rest between requests
opening    a new connection: look-up, check of the addresses, TLS
addresses  which addresses events may go to
stream     the bytes of a connection, as http.client reads and writes them; no answer fills memory
signing    an event as body and headers, by the Standard Webhooks convention

Promise: each attempt ends within its deadline, whatever the receiver does, and leaves no thread and no
connection behind but those that are kept on purpose; no event goes to an address that its service may not
reach; no error text holds a URL, a secret or anything that a receiver said. Each imports only those below it,
and of the app `domain` and `sockets`.
"""
