"""What a user is told of a run: before it begins, while it goes on, and against the prediction."""
