"""The Ray workers: the cluster, the pool of warm workers, and the handles of workers."""
