"""The service's gunicorn worker with shorter deadlines and smaller bounds, so that tests need not wait."""

import gunicorn_worker


class Worker(gunicorn_worker.Worker):
    request_s = 1.5
    answer_s = 1.5
    drain_s = 0.5
    held_at_most = 2 * 1024 * 1024
