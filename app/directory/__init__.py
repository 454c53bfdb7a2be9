"""The services in force, and whose a key is.

directory  finds services by id, callers by key; makes keys
in_force   what the workers of one gunicorn agree on, and what becomes of a wrong file
reading    from settings and files to services: what is missing falls back to the environment
file       SERVICES_FILE: tables, and what is wrong in them with its line
table      the keys of a table, and what each may be
source     what is read from the disk, with bounds, and handed from worker to worker

Promise: what is in force is whole and was checked; a file that is wrong changes nothing. Each imports only
those below it, and of the app `checks`, `config`, `domain`, `errors` and `telemetry`.
"""
