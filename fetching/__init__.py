"""The downloader's machinery: hosts and their limits, one request, what its answer holds, the ledger."""
