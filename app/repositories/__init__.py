"""What is kept in Redis, and every decision that must be atomic there."""
