"""What is done: one step of a round per file, and the kinds a round can be made of."""
