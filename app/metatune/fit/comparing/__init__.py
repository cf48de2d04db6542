"""What an artefact is held against: the names and shapes of another model, recipe or width."""
