"""A tuned training done again: what is recorded of it, and whether the same comes out."""
