"""Jobs around an audit, on the same search, verification and report: duplicates inside a data set."""
