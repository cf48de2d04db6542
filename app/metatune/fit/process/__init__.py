"""The process that a run has to itself: its memory, compiled programs, machine and signals."""
