"""The playground: the whole story on one page, with real parts. Only `make run` serves it."""
