"""Which job runs when and where: the lease, the policy, the loop, and each attempt."""
