"""Scheduling: the lease, the policy, the loop, and the attempts of jobs."""
