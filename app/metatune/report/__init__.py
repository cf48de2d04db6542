"""What people read: TensorBoard events, plots, the terminal, an artefact's README. Knows no JAX."""
