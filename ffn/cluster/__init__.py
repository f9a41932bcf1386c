"""Running the workflow's jobs on a cluster: launch lines, and one module a scheduler."""
