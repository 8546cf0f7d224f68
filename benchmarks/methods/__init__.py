"""Methods that nothing but benchmarks measures against: they are no part of the package."""
