"""Level 5: measures a data set: sources, the cascade of attacks, shards, records, resume, tally."""
