"""The nearest rows of many queries: the kernel of joins, of routing and of k-means. Knows arrays only."""
