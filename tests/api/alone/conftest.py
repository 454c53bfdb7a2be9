"""Tests that want a Redis into which nobody else looks."""

from tests.support.stores import own_valkey

# the relay of a service that other tests share would mail what is left here
valkey_server = own_valkey("module")
