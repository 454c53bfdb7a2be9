"""Trouble in the service's surroundings, each a small piece that a test can switch on and off."""
