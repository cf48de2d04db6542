"""Backward through the training: the adjoint of its state, and what is kept for the way back."""
