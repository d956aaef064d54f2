"""The parts of the downloader: hosts and their limits, requests, validation of responses, the ledger."""
