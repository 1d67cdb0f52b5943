"""What it costs, measured: `python -m benchmarks.NAME [--quick] [--json FILE]`."""
