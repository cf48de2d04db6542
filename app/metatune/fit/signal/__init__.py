"""Hypergradients that are noise: where they are, and what is followed in their place."""
