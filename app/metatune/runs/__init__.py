"""What a search and a training share as processes: a folder that is theirs, and how they end."""
