"""How mails are delivered: queue, workers, leases, breaker, and the relay that brings back what was lost."""
