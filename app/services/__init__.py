"""Policy in plain words: what happens in which order. Knows neither Flask nor Redis."""
