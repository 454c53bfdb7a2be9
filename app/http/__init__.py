"""HTTP: what all requests and answers have, whichever their view.

application  how a view is found: by method and path
hooks        around every request: its id, its log line, its metrics
auth         API keys, and CLIENT_LIMIT
bodies       read strictly, and bounded
arguments    a view's body, checked by its schema
schemas      what bodies and answers hold
responses    headers of every answer
problems     errors as RFC 9457 problems
openapi      the OpenAPI document
pages        its pages for people

Sockets and connections are in gunicorn_worker.py. Tests: tests/api/.
"""
