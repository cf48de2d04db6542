"""The outer loop: follows hypergradients, keeps the best, measures the result."""
