"""How services are told of events: each process delivers those that it caused, and one finds all others.

queue      whose events are due, fairly by service
receivers  which receivers fail or want no more events, shared by all processes: the courier notes it,
           queue and relay go by it
courier    makes attempts, one after the other: claims, posts, settles
relay      keeps the couriers at work, and finds what is due in Redis

Promise: an event that is written is delivered at least once, or tried for 24 hours, and each user's events
keep their order; no receiver holds up a registration, a mail or another service's events. Each imports only
those above it.
"""
