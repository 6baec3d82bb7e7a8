"""The table's internals: snapshots, commits, writes, history, upkeep."""
