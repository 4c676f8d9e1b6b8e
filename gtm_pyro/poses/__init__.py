"""What the numbers of poses and actions mean."""
