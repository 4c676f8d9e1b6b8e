"""What a trained model is measured on, and what it imagines."""
