"""Policy in plain words: what happens in which order. Knows neither Flask nor Redis.

Promise: what must be decided atomically is one call of a repository; a service only puts calls in order. May
import of the app `mail`, `repositories`, `telemetry`, `domain`, `errors` and `threads`.
"""
