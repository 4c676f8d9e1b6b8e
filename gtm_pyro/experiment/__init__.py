"""YAML, class paths, and what the data says of sizes."""
