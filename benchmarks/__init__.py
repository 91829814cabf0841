"""The load harness and the micro-benchmarks."""
