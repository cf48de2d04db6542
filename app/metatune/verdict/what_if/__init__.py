"""What a change of the chosen schedules would do, predicted from the run's own derivatives."""
