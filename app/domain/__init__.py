"""Values: addresses, identification numbers, registrations. No I/O; may import `errors`."""
