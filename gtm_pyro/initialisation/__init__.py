"""Starting values, found from frames and actions."""
