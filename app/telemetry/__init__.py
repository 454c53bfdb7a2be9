"""What is observed: log lines and metrics. Observing never raises, never blocks, never ends a thread."""
