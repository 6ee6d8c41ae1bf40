"""What ShopMate takes: time, calls, CPU, memory, tokens. `python -m benchmarks` prints it."""
