"""What the benchmarks share: scenarios, programs, servers, measuring, statistics, and the page of results."""
