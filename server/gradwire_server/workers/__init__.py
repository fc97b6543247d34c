"""The Ray workers: the cluster, the pool that keeps them warm, and the calls to each."""
