"""The outer loop: follows hypergradients, keeps the best, measures the result.

Here stands a run as a whole: what it is made of, its folder, its result. Beside it: `searching`,
how η moves; `trainers`, who trains at given η; `telling`, what a user sees; `process`, what a run
has to itself; `comparing`, what its artefact is held against; and `replaying`, one training again.
"""
