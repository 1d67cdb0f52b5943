"""Whether a campaign is sound, and a copy of it."""
