"""Webhooks: what a receiver of events is told, and how that travels.

webhooks     posts an event, over a kept connection or a new one; says whether it was taken
connections  opens connections (look-up, check of the addresses, TLS), and keeps them between requests
exchange     one request and its answer over a connection: Python's http.client
addresses    which addresses events may go to
signing      an event as body and headers, by the Standard Webhooks convention
answers      what an answer means, or that there is none

Promise: each attempt ends within its deadline, whatever the receiver does, and leaves no thread and no
connection behind but those that are kept on purpose; no event goes to an address that its service may not
reach; no error text holds a URL, a secret or anything that a receiver said. Each imports only those below it,
and of the app `domain` and `sockets`.
"""
