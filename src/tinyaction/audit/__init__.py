"""What is doubtful about a data set: labels, leaks, shortcuts, classes."""
