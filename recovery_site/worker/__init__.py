"""`run_worker`: two q2 clusters, the sweeps that keep them busy, and somebody who notices when they are not."""
