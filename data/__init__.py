"""What a campaign keeps: records, shards, sets and the layout of a workspace."""
