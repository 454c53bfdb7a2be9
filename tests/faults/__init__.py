"""What the service does when its surroundings fail."""
