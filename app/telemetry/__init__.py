"""What is observed: log lines, metrics and traces. Observing never raises, never blocks, never ends a thread.

Nothing personal is in it: no address, number, token or API key. May import `app.domain` and `app.errors`,
which name some of what is counted, and `app.threads`.
"""
