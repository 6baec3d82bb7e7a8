"""Spark: the lake's tasks on a cluster, its tables as a data source, its searches as SQL functions."""
