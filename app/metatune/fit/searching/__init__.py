"""The search: its points and phases, where hypergradients come from, how they move η."""
