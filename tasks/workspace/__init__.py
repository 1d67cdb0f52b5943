"""The checkout: Git, DVC, the rounds and their state, the lock, frozen inputs, where the services are."""
