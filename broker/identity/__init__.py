"""Identity sources: how a proof of what a caller is gets verified."""
