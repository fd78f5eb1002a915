"""What is shown: results, progress, pages."""
