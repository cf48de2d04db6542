"""Forward with the training: tangents or differences along directions of η, nothing kept."""
