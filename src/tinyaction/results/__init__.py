"""What came out: metrics, evaluation, the folder of a run, its report."""
