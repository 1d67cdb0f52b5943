"""What a round is measured by, and the gate."""
