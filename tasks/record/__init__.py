"""A round's record as it stands: annotations, candidates, votes."""
