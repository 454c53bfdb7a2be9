"""gunicorn's own defaults: what `gunicorn wsgi:app` finds in a folder without gunicorn.conf.py."""
