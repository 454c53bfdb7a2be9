"""What is kept in Redis, and every decision that must be atomic there: one typed method per Lua script.

A script reads all it needs before its first write, counts a guess before it compares it, and takes the time
from Redis. May import: `app.domain`, `app.errors`, `app.storage`.
"""
