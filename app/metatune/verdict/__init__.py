"""Whether what was tuned is worth using, against what a user would have done at equal cost."""
