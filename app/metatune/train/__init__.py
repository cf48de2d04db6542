"""Training for production: at tuned schedules or at a recipe's own, to a checkpoint to use."""
