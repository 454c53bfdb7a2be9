"""Looks at everything the service depends on, and says what is wrong and what to do about it.

`flask --app wsgi doctor`, or `python -m app.cli.doctor`. Changes nothing: what it writes to Redis to see
whether writes are taken is gone after five seconds, and it sends no mail.
"""
