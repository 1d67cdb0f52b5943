"""What a person sees of a campaign on the terminal."""
