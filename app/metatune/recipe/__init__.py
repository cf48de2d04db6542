"""Recipes: what is trained, on what, and what is tuned. Knows no JAX."""
