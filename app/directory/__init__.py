"""The services in force, and whose a key is.

Promise: what is in force is whole and was checked; a file that is wrong changes nothing. May import `config`,
`domain`, `errors` and `telemetry`.
"""
