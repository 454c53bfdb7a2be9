"""How services are told of events: every process delivers those of its own doings, and one finds the rest.

queue      whose events are due, fairly by service
receivers  which receivers fail or want no more events; all processes know the same
courier    one attempt after the other: claimed, posted, settled
relay      keeps the couriers at work, and finds what is due in Redis

Promise: an event that is written is delivered at least once, in the order of its user, or tried for 24 hours;
no receiver holds up a registration, a mail or another service's events. Each imports only those above it.
"""
