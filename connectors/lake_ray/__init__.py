"""Ray: the lake's tasks on a cluster, its tables as Ray datasets."""
