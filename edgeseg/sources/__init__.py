"""What frames come from: cameras, files, URLs and pipelines, parsed, opened and diagnosed."""
