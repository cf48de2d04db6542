"""What `metatune export --verify` runs in a process of its own, a module for each kind of export.

Each has `verify(expected, folder)`, which ends the process with what differs, and gives lines on
what was compared. The folder of the export is first on the path.
"""
