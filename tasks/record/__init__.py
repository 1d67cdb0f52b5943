"""A round's record as it stands: annotations, candidates, votes, and what earlier rounds say of people."""
