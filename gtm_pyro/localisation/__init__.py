"""Where the agent may be: landmarks, hypotheses, and their search."""
