"""What the commands do with a file of data: one model trained, or many compared; scores, reports."""
