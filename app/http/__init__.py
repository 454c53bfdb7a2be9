"""HTTP: what all requests and answers have in common.

Promise: every answer of the app has its request id and the security headers, and every error is an RFC 9457
problem. Where API keys are set, a caller without one learns nothing of what exists under /api/. Of what a
client sends, only a request id of the allowed form stands in a log line, and nothing in a metric.

May import of the app `container`, `telemetry`, `mail.reports`, `domain`, `errors` and `version`. Services
come from the container; the views are above this room.

application  Flask as used: how a view is found, what is noted of a request, what every answer has
hooks        after every request: its id, its log line, its metrics, its span
auth         API keys, and CLIENT_LIMIT
bodies       read strictly and bounded, checked by a view's schema
schemas      what bodies and answers hold
problems     errors as RFC 9457 problems
openapi      the OpenAPI document
pages        its pages for people

Sockets and connections are in gunicorn_worker.py. Tests: tests/api/.
"""
