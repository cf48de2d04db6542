"""Whether a gain survives on larger trainings: a ladder of them, measured and predicted."""
