"""The service's gunicorn worker with other deadlines and bounds, so that tests need not wait or send much."""

import gunicorn_worker


class Worker(gunicorn_worker.Worker):
    """All short and small."""

    request_s = 1.5
    answer_s = 1.5
    drain_s = 0.5
    held_at_most = 2 * 1024 * 1024


class Patient(gunicorn_worker.Worker):
    """Requests may take for ever, what is left of them a moment; 2 MB may wait."""

    request_s = 600.0
    drain_s = 0.5
    held_at_most = 2 * 1024 * 1024
