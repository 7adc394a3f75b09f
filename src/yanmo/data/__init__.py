"""Floor 3: documents → token shards → batches."""
