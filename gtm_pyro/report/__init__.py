"""Pages, figures and films of what tasks and models bring."""
