"""`python -m benchmarks.micro [NAME …]`: what each step of the hot way costs by itself, in one process."""
