"""Events in, and the service that runs all rooms: contract, ingest, store, fleet map, windows, schedule."""
