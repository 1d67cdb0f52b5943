"""What votes and candidates are worth: consensus, trust, agreement, the leaderboard. Pure functions."""
