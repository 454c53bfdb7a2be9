"""What Cedula costs, as ratios to what was measured beside it in the same run."""
